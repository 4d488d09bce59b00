"""Files that appear when they are whole: links, what killed runs left, and a last check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcpu.convert.gguf_writer import write_gguf
from lcpu.convert.output import check_free, check_space
from lcpu.engine.whole_file import whole_file
from lcpu.kernels.errors import LcpuError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="symbolic links, process ids and locks of POSIX")


def write(path: Path, content: bytes = b"new") -> None:
    with whole_file(path) as file:
        file.write(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# ---- symbolic links ----


@pytest.mark.parametrize("content", [None, b"old"])
def test_a_link_is_written_through(tmp_path, content):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "a.gguf", tmp_path / "a.gguf"
    if content is not None:
        target.write_bytes(content)
    link.symlink_to("disk/a.gguf")
    write(link)
    assert link.is_symlink()
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "disk") == ["a.gguf"]


def test_a_link_is_replaced_when_its_file_is_whole(tmp_path):
    (tmp_path / "b.gguf").write_bytes(b"old")
    (tmp_path / "a.gguf").symlink_to("b.gguf")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.gguf"):
        raise KeyboardInterrupt
    assert (tmp_path / "b.gguf").read_bytes() == b"old"
    assert names(tmp_path) == ["a.gguf", "b.gguf"]


def test_what_is_in_the_way_of_a_link(tmp_path):
    link = tmp_path / "a.gguf"
    link.symlink_to("b.gguf")
    check_free(link, force=False)  # it leads to nothing yet
    (tmp_path / "b.gguf").touch()
    with pytest.raises(LcpuError, match=r"a\.gguf: is there already; --force overwrites it"):
        check_free(link, force=False)
    check_free(link, force=True)
    link.unlink()
    link.symlink_to("missing/b.gguf")
    with pytest.raises(LcpuError, match="missing: no such folder: make it first, or write elsewhere"):
        check_space(link, 0)
    link.unlink()
    link.symlink_to("a.gguf")
    with pytest.raises(LcpuError, match=r"a\.gguf: is a symbolic link that leads back to itself: remove it first"):
        check_free(link, force=True)


# ---- what is left of killed runs ----


def test_parts_of_dead_processes_are_removed(tmp_path):
    ours = tmp_path / f"a.gguf.{dead_process()}.lcpu-part"
    alive = tmp_path / f"a.gguf.{os.getppid()}.lcpu-part"
    others = [tmp_path / f"a.gguf.{dead_process()}.part", tmp_path / "a.gguf.lcpu-part", tmp_path / "b.gguf"]
    for path in (ours, alive, *others):
        path.touch()
    check_space(tmp_path / "c.gguf", 0)
    assert names(tmp_path) == sorted(path.name for path in (alive, *others))


def test_a_part_that_someone_writes_is_kept(tmp_path):
    """A process of another container may have a number that is nobody's here; but it has the file locked."""
    import fcntl

    part = tmp_path / f"a.gguf.{dead_process()}.lcpu-part"
    with part.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        check_space(tmp_path / "c.gguf", 0)
        assert part.exists()
    check_space(tmp_path / "c.gguf", 0)
    assert not part.exists()


def test_a_killed_run_and_the_next(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from lcpu.engine.whole_file import whole_file\n"
        "with whole_file(Path('a.gguf')) as file:\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path).returncode == -9
    (left,) = names(tmp_path)
    assert left.endswith(".lcpu-part")
    check_space(tmp_path / "a.gguf", 0)
    write(tmp_path / "a.gguf")
    assert names(tmp_path) == ["a.gguf"]


# ---- the last check ----


def test_a_file_that_is_refused_gets_no_name(tmp_path):
    def refuse(part: Path) -> None:
        assert part.read_bytes().startswith(b"GGUF")
        raise LcpuError("no")

    (tmp_path / "a.gguf").write_bytes(b"old")
    with pytest.raises(LcpuError, match="no"):
        write_gguf(tmp_path / "a.gguf", {}, [], refuse)
    assert (tmp_path / "a.gguf").read_bytes() == b"old"
    assert names(tmp_path) == ["a.gguf"]
