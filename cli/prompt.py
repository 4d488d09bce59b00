"""Read the prompt: from -p, -f, or a pipe on stdin."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ..kernels.errors import LcpuError
from . import console
from .options import UsageError

ESCAPE = re.compile(rb"""\\(?:x([0-9a-fA-F]{2})|([nrt'"\\]))""")
ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def read_prompt(text: str | None, file: Path | None, *, escape: bool, pipe: bool, exact: bool = False) -> str | None:
    """The prompt, or None when none is given.

    `text` (-p) and `file` (-f) come first, and stdin is then left alone: an inherited one may never end. With `pipe`, a
    stdin that is not a terminal is the prompt when neither is given. As in llama.cpp, a file is taken as it is, but for
    one newline at its end. What comes through a pipe is what shells write there: it may have a BOM and the newlines of
    Windows, which are not part of the prompt either, unless it is `exact`.

    Errors: UsageError for both -p and -f; LcpuError for a file that cannot be read.
    """
    if text is not None and file is not None:
        raise UsageError("-p and -f are both prompts: give one of them")
    if text == "-" or (file is not None and str(file) == "-"):
        return read_stdin(exact)
    if text is not None:
        return unescape(text) if escape else as_unicode(text)
    if file is not None:
        try:
            return decode(file.read_bytes(), str(file), exact=True)
        except OSError as error:
            raise LcpuError(f"cannot read the file {file}: {error.strerror}; check the path after -f") from error
    if pipe and sys.stdin is not None and not console.stdin_is_terminal():
        return read_stdin(exact) or None
    return None


def read_stdin(exact: bool) -> str:
    if sys.stdin is None:
        raise LcpuError("stdin is closed; pipe the prompt in, or give it with -p TEXT or -f FILE")
    return decode(sys.stdin.buffer.read(), "stdin", exact)


def decode(data: bytes, source: str, exact: bool) -> str:
    try:
        text = data.decode("utf-8" if exact else "utf-8-sig")
    except UnicodeDecodeError as error:
        cause = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise LcpuError(f"the prompt in {source} is not UTF-8 text ({cause}); convert it first") from error
    return (text if exact else text.replace("\r\n", "\n")).removesuffix("\n")


def as_unicode(text: str) -> str:
    r"""An argument in valid Unicode: Python keeps bytes of the command line that are not UTF-8 as lone surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def unescape(text: str) -> str:
    r"""llama.cpp's escapes: \n \r \t \' \" \\ and \xHH, a byte of UTF-8. A backslash before anything else stays."""

    def replacement(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return bytes.fromhex(match[1].decode())
        return ESCAPED.get(match[2], match[2])

    return ESCAPE.sub(replacement, text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
