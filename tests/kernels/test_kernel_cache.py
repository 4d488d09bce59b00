"""Kernels are found on disk, and whatever is wrong with what is there, or with the disk, ends no run."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest

from lcpu.kernels import kernel_cache
from lcpu.kernels.jit import announcing, bind, hole, native, template

factor = hole()


@template
def _times(x):
    return factor * x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache."""
    folder = tmp_path / "cache" / "kernels"
    monkeypatch.setenv("LCPU_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_cache, "cache_directory", lambda: folder)
    monkeypatch.setattr(kernel_cache, "_reported", [])
    kernel_cache.can_keep.cache_clear()
    yield folder
    kernel_cache.can_keep.cache_clear()


def compiled() -> list[str]:
    """What a new process would compile to call a kernel. The call must succeed."""
    names: list[str] = []
    kernel = native(bind(_times, "double", factor=2))
    with announcing(names.append):
        assert kernel.call(21) == 42
    return names


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def raises_when_read() -> bytes:
    """A file of ours whose content cannot be used."""
    class Odd:
        def __reduce__(self):
            return int, ("not a number",)

    payload = pickle.dumps(Odd())
    return kernel_cache._CHECKSUM(payload).digest() + payload


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "one bit": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "foreign": lambda data: os.urandom(1000),
    "a pickle": lambda data: pickle.dumps((1, 2)),
    "a pickle that raises": lambda data: raises_when_read(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_written_anew(folder, damage, caplog):
    assert compiled() == ["double"]
    assert compiled() == []
    file = only_file(folder)
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    compiled()
    assert only_file(folder) == file
    assert file.read_bytes() != damaged
    assert compiled() == []
    assert caplog.messages == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere"),
                                  lambda path: (path.mkdir(), (path / "a").write_text(""))],
                         ids=["folder", "pipe", "dangling link", "full folder"])
def test_something_else_in_the_place_of_a_file(folder, make, caplog):
    compiled()
    file = only_file(folder)
    file.unlink()
    make(file)
    assert compiled() == ["double"]
    assert compiled() == []
    assert caplog.messages == []


def test_what_can_be_read_but_not_written_is_read(folder, monkeypatch, caplog):
    compiled()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(kernel_cache, "_write", refuse)
    kernel_cache.can_keep.cache_clear()
    assert compiled() == []
    assert caplog.messages == []


def test_a_full_disk_is_one_warning_that_names_the_folder(folder, monkeypatch, caplog):
    assert kernel_cache.can_keep()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert compiled() == compiled() == ["double"]
    kernel_cache.can_keep.cache_clear()
    assert not kernel_cache.can_keep()
    assert list(folder.iterdir()) == []
    assert caplog.messages == [
        f"compiled kernels cannot be kept in {folder.parent} (No space left on device), so every start compiles them "
        "again; LCPU_CACHE_DIR=FOLDER names another place"]


@pytest.mark.parametrize("level", ["cache", "kernels"])
def test_a_file_in_the_place_of_a_folder(folder, level, caplog):
    parent = folder.parent if level == "cache" else folder
    parent.parent.mkdir(parents=True, exist_ok=True)
    parent.write_text("")
    assert compiled() == compiled() == ["double"]
    (message,) = caplog.messages
    assert str(folder.parent) in message


@pytest.mark.skipif(not hasattr(os, "fork") or os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["closed", "read only"])
def test_a_folder_without_permission(folder, mode):
    folder.mkdir(parents=True)
    for each in (folder, *folder.parents[: 3]):
        each.chmod(0o755)
    folder.chmod(mode)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            os._exit(0 if compiled() == ["double"] and not kernel_cache.can_keep() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("unknown", ["~/.cache/lcpu", RuntimeError("no home")], ids=["older", "newer platformdirs"])
def test_without_a_home_there_is_no_cache(tmp_path, monkeypatch, unknown):
    def user_cache_dir(*_: object, **__: object) -> str:
        if isinstance(unknown, Exception):
            raise unknown
        return unknown

    monkeypatch.delenv("LCPU_CACHE_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", user_cache_dir)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="there is no home directory"):
        kernel_cache.cache_directory.__wrapped__()
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LCPU_CACHE_DIR", "~/kernels")
    assert kernel_cache.cache_directory.__wrapped__().parent == tmp_path / "kernels"


def test_a_relative_folder_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LCPU_CACHE_DIR", "here")
    assert kernel_cache.cache_directory.__wrapped__().parent == tmp_path / "here"


def test_many_may_write_and_read_at_once(tmp_path):
    file = tmp_path / "file"
    contents = [bytes([i]) * 100_000 for i in range(8)]
    whole = [kernel_cache._CHECKSUM(each).digest() + each for each in contents]
    kernel_cache._write(file, whole[0])
    ended = threading.Event()
    read: list[bytes | None] = []

    def reader() -> None:
        while not ended.is_set():
            read.append(kernel_cache._read(file))

    threads = [threading.Thread(target=lambda data=data: [kernel_cache._write(file, data) for _ in range(20)])
               for data in whole]
    watching = threading.Thread(target=reader)
    watching.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    watching.join()
    assert len(read) > 0
    assert set(read) <= set(contents)
    assert list(tmp_path.iterdir()) == [file]


def test_files_that_were_never_finished_are_removed(folder):
    folder.mkdir(parents=True)
    old, new = folder / "a.kernel.1.part", folder / "a.kernel.2.part"
    old.write_text("")
    new.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    assert kernel_cache.can_keep()
    assert list(folder.iterdir()) == [new]
