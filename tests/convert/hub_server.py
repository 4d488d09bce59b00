"""The part of the Hugging Face hub's API that its client uses to download a model, on a local port."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_letmein"


@dataclass
class Hub:
    """One model, `acme/tiny`: its files, how it answers, and what it was asked."""

    files: dict[str, bytes]
    is_gated: bool = False
    drops: dict[str, list[int]] = field(default_factory=dict)  # file -> bytes after which each of its first GETs ends
    stalls: dict[str, int] = field(default_factory=dict)  # file -> bytes after which GETs of it wait for `go_on`
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range
    url: str = ""

    def gets(self, name: str) -> list[str | None]:
        """The ranges that were asked for of a file."""
        return [wanted for method, path, wanted in self.requests if method == "GET" and path.endswith(f"/{name}")]


def environment(hub: Hub | None, home: Path) -> dict[str, str]:
    """The settings of a client of a hub, or of none that answers, with its cache in a folder."""
    endpoint = hub.url if hub else "http://127.0.0.1:9"
    return {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "",
            "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}


@contextmanager
def serve(folder: Path, **how: bool | dict[str, list[int]]) -> Iterator[Hub]:
    """A hub that has the files of a folder, until the block ends."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub = Hub(files, **how)  # type: ignore[arg-type]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        api = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        if match is None or match[1] != "acme/tiny":
            self.refuse(401, "RepoNotFound", "Invalid username or password.")
        elif match[2 if file else 3] not in (None, "main", COMMIT):
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        elif file and self.hub.is_gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(403, "GatedRepo", "Access to model acme/tiny is restricted")
        elif file and file[3] not in self.hub.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
        elif file:
            self.send_file(file[3])
        elif match[2] == "tree":
            self.send_json([self.entry(name) for name in self.hub.files])
        else:
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.hub.files.items()]
            self.send_json({"id": "acme/tiny", "sha": COMMIT, "siblings": siblings, "private": False, "tags": [],
                            "downloads": 0, "likes": 0})

    def entry(self, name: str) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(self.hub.files[name]), "oid": self.etag(name)}

    def etag(self, name: str) -> str:
        return hashlib.sha256(self.hub.files[name]).hexdigest()

    def refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_json(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_file(self, name: str) -> None:
        data = self.hub.files[name]
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, len(data)) if wanted and wanted[2] else len(data)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{self.etag(name)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.hub.stalls:
            first = start + self.hub.stalls[name]
            self.wfile.write(data[start:first])
            self.wfile.flush()
            self.hub.go_on.wait(60)
            start = first
        drops = self.hub.drops.get(name)
        if drops:
            self.wfile.write(data[start : start + drops.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(data[start:end])
