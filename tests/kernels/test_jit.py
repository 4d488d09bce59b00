"""Kernels are compiled once and found again by later processes."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lcpu.kernels
from lcpu.kernels import isa, jit
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.jit import announcing, bind, device, hole, kernel, native, template
from lcpu.kernels.simd import get_i64, put_i64

from .running import run

# Prints what was compiled, what it computed, and where it is kept.
SCRIPT = """
import json
import numpy as np
from lcpu.kernels.formats import FORMATS
from lcpu.kernels.jit import announcing
from lcpu.kernels.kernel_cache import cache_directory
from lcpu.kernels.program import Program
from lcpu.kernels.team import Team
out, compiled = np.zeros((1, 32), np.float32), []
with announcing(compiled.append):
    program = Program()
    program.add(FORMATS[8].dequantize, count=np.ones(1, np.int64), indices=np.zeros(1, np.int64),
                table=np.full(34, 60, np.uint8), blocks=1, block_bytes=34, block_values=32, out=out, out_stride=128)
    program.finish()
    with Team(2) as team:
        team.run(program)
print(json.dumps([compiled, out[0, 0].item(), str(cache_directory())]))
"""
# Processes take their time, and this part of the house is the same whatever the path.
once = pytest.mark.skipif("LCPU_ISA" in os.environ, reason="the same whatever path this process has")
VALUE = float(np.full(2, 60, np.uint8).view(np.float16)[0]) * 60


def in_a_new_process(cache: Path, warning: str = "", **environment: str) -> tuple[list[str], Path]:
    """What a new process compiled, and its cache directory."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True,
                          env={**os.environ, "LCPU_CACHE_DIR": str(cache), **environment})
    assert done.returncode == 0, done.stderr
    assert done.stderr == warning
    compiled, value, directory = json.loads(done.stdout)
    assert value == VALUE
    return compiled, Path(directory)


@once
def test_a_second_process_compiles_nothing(tmp_path):
    compiled, directory = in_a_new_process(tmp_path)
    assert "dequantize_q8_0" in compiled
    assert "_follow" in compiled
    assert len(compiled) == len(set(compiled))
    assert directory.parent == tmp_path
    assert any(directory.iterdir())
    assert in_a_new_process(tmp_path) == ([], directory)


@once
def test_a_changed_source_and_another_path_have_their_own_directory(tmp_path):
    copy = tmp_path / "kernels_copy"
    shutil.copytree(Path(lcpu.kernels.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def directory(isa: str) -> str:
        script = "from kernels_copy.kernel_cache import cache_directory; print(cache_directory())"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "LCPU_ISA": isa}
        return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True,
                              check=True).stdout

    before = directory("generic")
    assert directory("generic") == before
    assert directory("generic-16") != before
    with open(copy / "formats" / "q8_0.py", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert directory("generic") != before


@once
def test_a_directory_that_cannot_be_written_does_no_harm(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below"
    compiled, directory = in_a_new_process(
        folder, f"compiled kernels cannot be kept in {folder} (Not a directory), so every start compiles them again; "
        "LCPU_CACHE_DIR=FOLDER names another place\n")
    assert "dequantize_q8_0" in compiled
    assert not directory.exists()


# ---- settings of Numba that were made for other programs ----


@once
def test_settings_of_numba_change_nothing(tmp_path):
    """What is compiled under them is also what is compiled without them."""
    settings = {"NUMBA_DISABLE_JIT": "1", "NUMBA_OPT": "0", "NUMBA_BOUNDSCHECK": "1", "NUMBA_DUMP_LLVM": "1",
                "NUMBA_DUMP_ASSEMBLY": "1", "NUMBA_DEBUGINFO": "1", "NUMBA_CACHE_LOCATOR_CLASSES": "None",
                "NUMBA_CACHE_DIR": str(tmp_path / "elsewhere")}
    compiled, _ = in_a_new_process(tmp_path / "cache", **settings)
    assert "dequantize_q8_0" in compiled
    assert not (tmp_path / "elsewhere").exists()


@once
@pytest.mark.parametrize("where", ["environment", "file"])
def test_a_processor_that_lacks_what_kernels_need_is_an_error(tmp_path, where):
    """LLVM would end the process."""
    if where == "file":
        (tmp_path / ".numba_config.yaml").write_text("cpu_name: generic\n")
    environment = {**os.environ} | ({"NUMBA_CPU_NAME": "generic"} if where == "environment" else {})
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "LcpuError: NUMBA_CPU_NAME or NUMBA_CPU_FEATURES" in done.stderr.splitlines()[-1]


@once
@pytest.mark.parametrize("content", ["a: [", "num_threads: 0"])
def test_settings_that_numba_does_not_take_are_one_error(tmp_path, content):
    (tmp_path / ".numba_config.yaml").write_text(content)
    done = subprocess.run([sys.executable, "-c", "import lcpu.kernels.jit"], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 1
    assert "lcpu.kernels.errors.LcpuError: Numba cannot be imported" in done.stderr


@pytest.mark.parametrize(
    ("name", "features", "good"),
    [(None, None, True), ("znver4", None, True), ("generic", "", False), (None, "", True), (None, "+avx2", True),
     (None, "-f16c", False), ("generic", "+f16c", True), ("generic", "+sse2, +sse3", False)],
)
def test_which_processors_do(monkeypatch, name, features, good):
    path = replace(isa.ISAS["generic"], needs=(("f16c",),))
    monkeypatch.setattr(jit, "active", lambda: path)
    monkeypatch.setattr(jit, "host_features", lambda: frozenset(["f16c"]))
    monkeypatch.setattr(jit.config, "CPU_NAME", name)
    monkeypatch.setattr(jit.config, "CPU_FEATURES", features)
    if good:
        jit.check_processor.__wrapped__()
    else:
        with pytest.raises(LcpuError, match="unset both"):
            jit.check_processor.__wrapped__()


# ---- in this process ----


@native
def _sum(a, b):
    return a + b


operation = hole()


@template
def _put(work, thread, threads, out, x):
    put_i64(out, operation(get_i64(x)))


@device
def _twice(x):
    return 2 * x


@device
def _square(x):
    return x * x


put_twice = kernel(bind(_put, "put_twice", operation=_twice))
put_square = kernel(bind(_put, "put_square", operation=_square))


def test_native_functions_are_called_from_python():
    assert _sum.call(2**40, -3) == 2**40 - 3
    assert _sum.operands == ("a", "b")


def test_templates_make_kernels_of_their_own():
    out = np.zeros(2, np.int64)
    for i, each in enumerate((put_twice, put_square)):
        run(each, out=out[i:], x=np.array([7]))
    assert out.tolist() == [14, 49]
    assert repr(put_twice) == "<kernel put_twice(out, x)>"


@pytest.mark.parametrize("fillings", [{}, {"operations": _twice}, {"operation": _twice, "get_i64": _twice}])
def test_bind_fills_exactly_the_holes_of_a_template(fillings):
    assert _put.holes == {"operation"}
    with pytest.raises(TypeError, match=r"put_wrongly: the holes of _put\(\) are operation; given were "):
        bind(_put, "put_wrongly", **fillings)


def test_a_function_without_holes_is_no_template():
    with pytest.raises(TypeError, match="uses no hole"):
        template(lambda x: get_i64(x))


def test_a_kernel_is_compiled_when_it_is_first_needed():
    lazy = kernel(bind(_put, "put_lazily", operation=_twice))
    assert "compiled" not in vars(lazy)
    assert lazy.address == lazy.address != 0
    assert "compiled" in vars(lazy)


def test_listeners_do_not_outlive_their_block():
    with pytest.raises(RuntimeError), announcing(print):
        raise RuntimeError
    assert jit._listener is None


# ---- signals ----


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_a_signal_ends_the_wait_for_the_compiler_at_once():
    """Also where it strikes while a callback from C runs, in which Python drops exceptions."""
    go_on, ended = threading.Event(), threading.Event()
    callback = ctypes.CFUNCTYPE(None)(lambda: go_on.wait(60))

    def work() -> None:
        callback()
        ended.set()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            jit._interruptibly(work)
        assert not ended.is_set()
    finally:
        signal.signal(signal.SIGALRM, before)
        go_on.set()
    assert ended.wait(60)  # what was begun is ended


def test_errors_of_the_compiler_are_raised():
    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        jit._interruptibly(fail)


def test_without_another_thread_this_one_compiles(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done: list[int] = []
    jit._interruptibly(lambda: done.append(1))
    assert done == [1]
