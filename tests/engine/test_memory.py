"""How much memory is left, by /proc/meminfo and by control groups of both versions; and models that do not fit."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lcpu import LLM
from lcpu.engine import memory
from lcpu.engine.memory import Needs, Room, fitting_context, spare_bytes
from lcpu.kernels.errors import LcpuError

MIB = 1 << 20
UNLIMITED = "9223372036854771712\n"
V1_MOUNT = "32 31 0:29 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2_MOUNT = "41 31 0:38 {root} {mount} rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
Files = Callable[[Mapping[str, str]], None]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """files(contents): of all files, only these exist."""

    def pretend(contents: Mapping[str, str]) -> None:
        def read_text(self: Path, *args: object, **kwargs: object) -> str:
            if str(self) not in contents:
                raise FileNotFoundError(2, "No such file", str(self))
            return contents[str(self)]

        monkeypatch.setattr(Path, "read_text", read_text)

    return pretend


def meminfo(available: int) -> dict[str, str]:
    """`available` in MiB, as all sizes here."""
    return {"/proc/meminfo": f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable:   {available * 1024} kB\n"}


def group_2(folder: str, most: str, used: int, *, high: str = "max", inactive: int = 0,
            active: int = 0) -> dict[str, str]:
    folder = folder.rstrip("/")
    return {
        f"{folder}/memory.max": f"{most}\n",
        f"{folder}/memory.high": f"{high}\n",
        f"{folder}/memory.current": f"{used * MIB}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {inactive * MIB}\nactive_file {active * MIB}\nodd line here\n",
    }


def group_1(folder: str, most: str, used: int, *, inactive: int = 0, hierarchical: str = UNLIMITED) -> dict[str, str]:
    return {
        f"{folder}/memory.limit_in_bytes": f"{most}\n",
        f"{folder}/memory.usage_in_bytes": f"{used * MIB}\n",
        f"{folder}/memory.stat": f"inactive_file 1\nhierarchical_memory_limit {hierarchical}\n"
        f"total_inactive_file {inactive * MIB}\ntotal_active_file 0\n",
    }


def mib(count: int) -> str:
    return str(count * MIB)


V2 = {"/proc/self/cgroup": "0::/a/b\n"}
V1 = {"/proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/x\n1:cpu:/other\n0::/\n"}


@pytest.mark.parametrize(("contents", "expected"), [
    (meminfo(3000), Room(3000 * MIB)),
    ({**V2, **meminfo(3000)}, Room(3000 * MIB)),
    # version 2
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", mib(600), 100)}, Room(500 * MIB, True)),
    ({**V2, **meminfo(300), **group_2("/sys/fs/cgroup/a/b", mib(600), 100)}, Room(300 * MIB)),
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", "max", 100)}, Room(3000 * MIB)),
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", mib(600), 100, high=mib(400))}, Room(300 * MIB, True)),
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", "max", 100, high=mib(400))}, Room(300 * MIB, True)),
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", mib(600), 500, inactive=200, active=50)},
     Room(350 * MIB, True)),  # page cache can be dropped
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", mib(600), 700)}, Room(0, True)),
    # the group around it has less left
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", mib(600), 100),
      **group_2("/sys/fs/cgroup/a", mib(900), 700)}, Room(200 * MIB, True)),
    # a namespace: the path is /, and the files are at the root
    ({"/proc/self/cgroup": "0::/\n", **meminfo(3000), **group_2("/sys/fs/cgroup", mib(600), 100)},
     Room(500 * MIB, True)),
    # a path from outside the namespace
    ({"/proc/self/cgroup": "0::/../x\n", **meminfo(3000), **group_2("/sys/fs/cgroup", mib(600), 100)},
     Room(500 * MIB, True)),
    # the mount says where the tree is, and which part of it
    ({**V2, "/proc/self/mountinfo": V2_MOUNT.format(root="/", mount="/groups"), **meminfo(3000),
      **group_2("/groups/a", mib(600), 100)}, Room(500 * MIB, True)),
    ({**V2, "/proc/self/mountinfo": V2_MOUNT.format(root="/a", mount="/my\\040groups"), **meminfo(3000),
      **group_2("/my groups/b", mib(600), 100)}, Room(500 * MIB, True)),
    # missing or strange files
    ({**V2, **meminfo(3000), "/sys/fs/cgroup/a/b/memory.max": mib(600)}, Room(3000 * MIB)),
    ({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", "nonsense", 100)}, Room(3000 * MIB)),
    ({"/proc/self/cgroup": "nonsense\n\n", **meminfo(3000)}, Room(3000 * MIB)),
    ({**V2, "/proc/self/mountinfo": "nonsense\n1 2 - x\n\n", **meminfo(3000),
      **group_2("/sys/fs/cgroup/a/b", mib(600), 100)}, Room(500 * MIB, True)),
    # version 1
    ({**V1, **meminfo(3000), **group_1("/sys/fs/cgroup/memory/docker/x", mib(600), 100)}, Room(500 * MIB, True)),
    ({**V1, **meminfo(3000), **group_1("/sys/fs/cgroup/memory", mib(600), 100, inactive=50)}, Room(550 * MIB, True)),
    ({**V1, **meminfo(3000), **group_1("/sys/fs/cgroup/memory/docker/x", UNLIMITED, 100)}, Room(3000 * MIB)),
    ({**V1, **meminfo(3000), **group_1("/sys/fs/cgroup/memory", UNLIMITED, 100, hierarchical=mib(600))},
     Room(500 * MIB, True)),
    ({**V1, "/proc/self/mountinfo": V1_MOUNT.format(root="/docker/x"), **meminfo(3000),
      **group_1("/sys/fs/cgroup/memory", mib(600), 100)}, Room(500 * MIB, True)),
    ({**V1, **meminfo(3000), **group_1("/sys/fs/cgroup/memory/other", mib(600), 100)}, Room(3000 * MIB)),  # the cpu's
    # both: version 2 without controllers beside version 1
    ({**V1, "/proc/self/mountinfo": V1_MOUNT.format(root="/") + V2_MOUNT.format(root="/", mount="/unified"),
      **meminfo(3000), **group_1("/sys/fs/cgroup/memory/docker", mib(600), 100)}, Room(500 * MIB, True)),
], ids=str)
def test_room(files: Files, contents: dict[str, str], expected: Room) -> None:
    files(contents)
    assert memory.room() == expected


def test_room_without_proc(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files({})
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 16384}.__getitem__, raising=False)
    assert memory.room() == Room(16384000)
    monkeypatch.delattr(os, "sysconf")
    assert memory.room() is None
    assert fitting_context(Path("x"), NEEDS, promised=0, shorten=False) == 8192  # nothing is known, nothing refused


def test_this_machine() -> None:
    limit = memory.room()
    assert limit is None or limit.nbytes > 0


# 400 MiB of weights, 800 MiB of context, 36 of buffers, and 64 to spare
NEEDS = Needs(weights=400 * MIB, context=800 * MIB, q8_0_context=425 * MIB, tokens=8192, buffers=36 * MIB)
Q8_0 = ", or store keys and values in Q8_0 (-ctk q8_0 -ctv q8_0)"


@pytest.mark.parametrize(("available", "tokens"), [(1300, 8192), (1299, 7936), (900, 4096), (550, 512)])
def test_a_default_context_is_cut(files: Files, caplog: pytest.LogCaptureFixture, available: int, tokens: int) -> None:
    files(meminfo(available))
    with caplog.at_level(logging.INFO, "lcpu"):
        assert fitting_context(Path("m.gguf"), NEEDS, promised=0, shorten=True) == tokens
    size = f"{available / 1024:.1f} GiB" if available >= 1024 else f"{available} MiB"
    assert caplog.messages == ([] if tokens == 8192 else [
        f"m.gguf: the context is cut from 8192 to {tokens} tokens, because only {size} are available; "
        "-c N asks for a size"])


@pytest.mark.parametrize(("available", "promised", "shorten", "way"), [
    (1299, 0, False, "take a context of at most 7936 tokens (-c) or a smaller type" + Q8_0),
    (925, 0, False, "take a context of at most 4352 tokens (-c) or a smaller type" + Q8_0),
    (924, 0, False, "take a context of at most 4096 tokens (-c) or a smaller type"),
    (549, 0, True, "take a context of at most 256 tokens (-c) or a smaller type"),  # too few to be a default
    (524, 0, True, "take a smaller model or type"),
    (1524, 1000, True, "take a shorter context (-c) for all models, or smaller ones"),  # what other models will take
    (480, 10, True, "take a smaller model or type"),
])
def test_what_does_not_fit(files: Files, available: int, promised: int, shorten: bool, way: str) -> None:
    files(meminfo(available))
    left = available - promised
    with pytest.raises(LcpuError) as caught:
        fitting_context(Path("m.gguf"), NEEDS, promised=promised * MIB, shorten=shorten)
    size = f"{left / 1024:.1f} GiB" if left >= 1024 else f"{left} MiB"
    assert str(caught.value) == (
        "m.gguf: needs 1.3 GiB of memory (weights 400 MiB, context of 8192 tokens 800 MiB, buffers 100 MiB), "
        f"but only {size} are available: {way}; --no-memory-check loads it anyway")


def test_what_may_be_spent_beside_a_model(files: Files) -> None:
    files(meminfo(2000))
    assert spare_bytes(NEEDS, promised=100 * MIB) == 300 * MIB
    assert spare_bytes(NEEDS, promised=800 * MIB) == 0


def test_q8_0_helps_where_heads_fit_it(tiny_gguf: Path) -> None:
    """The embedded model's heads do; those of 8 dimensions do not."""
    with LLM.load(context=4096) as llm, LLM.load(context=4096, cache_types=("q8_0", "q8_0")) as small:
        needs, less = llm._model._builder.needs(), small._model._builder.needs()
    assert less.q8_0_context == less.context < 0.65 * needs.context
    assert needs.q8_0_context == pytest.approx(less.context, rel=0.01)  # queries take less room, too
    with LLM.load(tiny_gguf) as llm:
        needs = llm._model._builder.needs()
    assert needs.q8_0_context == needs.context


def test_memory_for_many_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as was asked for, or as half of what is left beside one text holds."""
    with LLM.load(context=1024, cache_tokens=1 << 20, check_memory=False) as llm:
        assert llm.cache_tokens == 1 << 20
        needs, page_bytes = llm._model._builder.needs(), llm._model.pool.page_bytes
    for pages, tokens in ((0, 1024), (3, 1024 + 384), (1 << 20, 8192)):
        monkeypatch.setattr(memory, "room", lambda pages=pages: Room(needs.total + 2 * pages * page_bytes))
        with LLM.load(context=1024, cache_tokens=8192) as llm:
            assert (llm.context, llm.cache_tokens) == (1024, tokens)


def test_the_limit_of_a_container_is_named(files: Files) -> None:
    files({**V2, **meminfo(3000), **group_2("/sys/fs/cgroup/a/b", mib(600), 100)})
    with pytest.raises(LcpuError, match=r"only 500 MiB are available \(limit of the container or cgroup\): take a sm"):
        fitting_context(Path("m.gguf"), NEEDS, promised=0, shorten=True)


def test_models_are_checked_when_loaded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of the embedded model, weights and buffers are a few MiB, and a context of 100,000 tokens some hundred."""
    monkeypatch.setattr(memory, "room", lambda: Room(100 * MIB))
    with pytest.raises(LcpuError, match=r"context of 1000064 tokens .* but only 100 MiB are available: take a context"):
        LLM.load(context=1_000_000)
    with LLM.load(context=1_000_000, check_memory=False) as llm:
        assert llm.context == 1_000_000
    monkeypatch.setattr(memory, "room", lambda: Room(1 * MIB))
    with pytest.raises(LcpuError, match="only 1 MiB are available: take a smaller model"):
        LLM.load()
    assert not caplog.messages


def test_a_loaded_model_has_its_cut_context(monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM.load() as whole:
        needs = whole._model._builder.needs()
    del whole
    least = needs.weights + needs.buffers + memory._SPARE
    monkeypatch.setattr(memory, "_LEAST_CONTEXT", 256)
    monkeypatch.setattr(memory, "room", lambda: Room(least + needs.context * 300 // needs.tokens))
    with LLM.load() as llm:
        assert (llm.context, len(llm.logits(list(range(1, 200))))) == (256, 199)


def test_what_other_models_will_take_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with LLM.load(context=1 << 16) as llm:
        model = llm._model
        needs, before = model._builder.needs(), model.untouched_bytes
        assert before == needs.context + needs.buffers
        monkeypatch.setattr(memory, "room", lambda: Room(needs.total + before - MIB))
        with pytest.raises(LcpuError, match="take a context of at most"):
            LLM.load(context=1 << 16, beside=llm)
        with LLM.load(context=1 << 10, beside=llm):
            pass
        llm.logits([1] * 1000)
        assert needs.context * 0.98 < model.untouched_bytes < needs.context * 0.99
    with LLM.load(context=1 << 16):  # the closed one takes nothing more
        pass
