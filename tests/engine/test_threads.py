"""How many threads: processors of this process, cores, and the quotas of control groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lcpu.engine import threads
from lcpu.kernels.errors import LcpuError

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
UNLIMITED = 512
Machine = Callable[[Mapping[str, str], int], None]

LARGE = 1 << 40  # bytes of weights: no model is too small for all threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """machine(files, processors): only these files exist, and the process may use that many processors."""

    def pretend(files: Mapping[str, str], processors: int = 64) -> None:
        def read_text(self: Path, *args: object, **kwargs: object) -> str:
            if str(self) not in files:
                raise FileNotFoundError(2, "No such file", str(self))
            return files[str(self)]

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)), raising=False)

    return pretend


def version_2(group: str, **quotas: str) -> dict[str, str]:
    """Files of cgroup v2, where `quotas` name groups with `_` for the root and `__` for a slash."""
    files = {"/proc/self/cgroup": f"0::{group}\n"}
    for name, quota in quotas.items():
        folder = "/" if name == "_" else "/" + name.replace("__", "/") + "/"
        files[f"/sys/fs/cgroup{folder}cpu.max"] = quota + "\n"
    return files


@pytest.mark.parametrize(("files", "expected"), [
    ({}, UNLIMITED),  # no control groups at all
    (version_2("/"), UNLIMITED),
    (version_2("/", _="max 100000"), UNLIMITED),
    (version_2("/", _="400000 100000"), 4),
    (version_2("/", _="250000 100000"), 2),  # rounded down
    (version_2("/", _="50000 100000"), 1),  # but not to none
    (version_2("/", _="1000000 500000"), 2),
    (version_2("/a/b", a__b="800000 100000"), 8),
    (version_2("/a/b", a="300000 100000", a__b="800000 100000"), 3),  # the group around it is smaller
    (version_2("/a/b", a="300000 100000", a__b="max 100000"), 3),
    (version_2("/a/b", _="200000 100000", a="300000 100000", a__b="100000 100000"), 1),
    (version_2("/outside/the/namespace", _="600000 100000"), 6),
    (version_2("/../..", _="600000 100000"), 6),
    (version_2("/", _="nonsense"), UNLIMITED),
    (version_2("/", _=""), UNLIMITED),
    (version_2("/", _="100000 0"), UNLIMITED),
], ids=str)
def test_quota_version_2(machine: Machine, files: dict[str, str], expected: int) -> None:
    machine(files, 1000)
    assert threads.thread_count(None, LARGE) == expected


def version_1(quota: str, period: str, folder: str = "/docker/x") -> dict[str, str]:
    return {
        "/proc/self/cgroup": "12:pids:/docker/x\n5:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n0::/\n",
        f"/sys/fs/cgroup/cpu{folder}/cpu.cfs_quota_us": quota + "\n",
        f"/sys/fs/cgroup/cpu{folder}/cpu.cfs_period_us": period + "\n",
    }


@pytest.mark.parametrize(("files", "expected"), [
    (version_1("-1", "100000"), UNLIMITED),
    (version_1("350000", "100000"), 3),
    (version_1("20000", "100000"), 1),
    (version_1("200000", "100000", ""), 2),  # a container sees its own group as the root
    (version_1("500000", "100000", "/docker"), 5),
    ({**version_1("500000", "100000"), **version_1("-1", "100000", "")}, 5),
    ({key: value for key, value in version_1("500000", "100000").items() if "period" not in key}, UNLIMITED),
    # Of other controllers' groups nothing counts.
    ({"/proc/self/cgroup": "3:cpuset:/x\n", "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000",
      "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000"}, UNLIMITED),
], ids=str)
def test_quota_version_1(machine: Machine, files: dict[str, str], expected: int) -> None:
    machine(files, 1000)
    assert threads.thread_count(None, LARGE) == expected


def test_processors(machine: Machine) -> None:
    machine({}, 6)
    assert threads.thread_count(None, LARGE) == 6
    machine(version_2("/", _="400000 100000"), 2)
    assert threads.thread_count(None, LARGE) == 2


def test_cores_not_their_threads(machine: Machine) -> None:
    machine({SIBLINGS.format(n): f"{n % 4},{n % 4 + 4}\n" for n in range(8)}, 8)
    assert threads.thread_count(None, LARGE) == 4
    machine({SIBLINGS.format(n): f"{n // 2 * 2}-{n // 2 * 2 + 1}\n" for n in range(8)}, 3)
    assert threads.thread_count(None, LARGE) == 2


def test_without_affinity(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    machine({}, 1)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert threads.thread_count(None, LARGE) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.thread_count(None, LARGE) == 1


def test_macos_counts_cores_for_performance(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    machine({}, 8)
    monkeypatch.setattr(threads.sys, "platform", "darwin")
    for known, expected in (({"hw.perflevel0.physicalcpu": 4, "hw.physicalcpu": 8}, 4), ({"hw.physicalcpu": 6}, 6)):
        monkeypatch.setattr(threads, "sysctl", known.get)
        assert threads.thread_count(None, LARGE) == expected


def test_wanted(machine: Machine) -> None:
    machine({}, 512)
    assert [threads.thread_count(wanted, LARGE) for wanted in (1, 7, 512)] == [1, 7, 512]
    machine({}, 2)
    assert [threads.thread_count(wanted, LARGE) for wanted in (1, 2, 3, 512)] == [1, 2, 2, 2]
    for wanted in (0, -1, 513, 10000):
        with pytest.raises(LcpuError, match=f"^{wanted} threads: choose 1 to 512"):
            threads.thread_count(wanted, LARGE)


def test_this_machine() -> None:
    assert 1 <= threads.thread_count(None, LARGE) <= (os.cpu_count() or 1)


def test_small_models_get_fewer_threads(machine: Machine) -> None:
    machine({}, 4)
    assert [threads.thread_count(None, size << 20) for size in (0, 1, 7, 8, 16, 1000)] == [1, 1, 1, 2, 3, 4]
    assert threads.thread_count(3, 0) == 3
