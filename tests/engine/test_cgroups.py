"""Which folders of control groups count: see test_threads.py and test_memory.py for what is read in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcpu.engine.cgroups import cgroup_folders, read_limit


@pytest.mark.parametrize(("group", "mounts", "expected"), [
    ("0::/a/b\n", "4 3 0:8 / /g rw - cgroup2 cgroup2 rw\n", ["/g/a/b", "/g/a", "/g"]),
    ("0::/a/b\n", "4 3 0:8 /a /g rw - cgroup2 cgroup2 rw\n", ["/g/b", "/g"]),
    ("0::/a/b\n", "4 3 0:8 /ab /g rw - cgroup2 cgroup2 rw\n", ["/g/a/b", "/g/a", "/g"]),  # another group's name
    ("5:cpu,cpuacct:/a\n", "4 3 0:8 / /g rw - cgroup cgroup rw,cpuacct,cpu\n", ["/g/a", "/g"]),
    ("5:cpuset:/a\n", "4 3 0:8 / /g rw - cgroup cgroup rw,cpuset\n", []),
    ("5:cpu:/a:b\n0::/c\n", "4 3 0:8 / /g rw - cgroup cgroup rw,cpu\n5 3 0:9 / /h rw - cgroup2 cgroup2 rw\n",
     ["/g/a:b", "/g", "/h/c", "/h"]),
    ("0::/\n", "", ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]),
    ("", "", []),
])
def test_folders(monkeypatch: pytest.MonkeyPatch, group: str, mounts: str, expected: list[str]) -> None:
    contents = {"/proc/self/cgroup": group, "/proc/self/mountinfo": mounts}
    monkeypatch.setattr(Path, "read_text", lambda self: contents[str(self)])
    assert [str(folder) for folder in cgroup_folders("cpu")] == expected


def test_read_limit(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("12 34\n")
    two.write_text("max\n")
    assert read_limit(one, one) == [12, 34, 12, 34]
    assert read_limit(one, two) is None
    assert read_limit(tmp_path / "none") is None
