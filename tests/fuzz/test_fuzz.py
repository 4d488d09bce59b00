"""A few seconds of `make fuzz`, and what its driver does with bad outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import driver

SEED = 1


@pytest.mark.parametrize(("target", "cases"), [("gguf", 3000), ("safetensors", 6000), ("torch", 2000),
                                               ("tokenizer", 800), ("template", 400)])
def test_mutated_files_are_read_or_refused(target: str, cases: int, tmp_path: Path) -> None:
    result = driver.fuzz(target, cases, SEED, 1, tmp_path)
    assert not result.failures, "\n".join(map(str, result.failures))
    assert result.accepted + result.refused == cases
    assert result.accepted > cases / 50, "most of what the mutations make should get past the first checks"
    assert result.refused > cases / 50


def test_cases_depend_on_their_seed_and_number_alone() -> None:
    for target in driver.TARGETS:
        assert driver.case_bytes(target, 5, 7) == driver.case_bytes(target, 5, 7)
        assert len({driver.case_bytes(target, seed, number) for seed in (1, 2) for number in range(20)}) > 20


@pytest.mark.parametrize(("code", "what"), [
    ("raise ValueError('odd')", "ValueError: odd"),
    ("raise LcpuError('two\\nlines')", "AssertionError: an error that is not one line"),
    ("bytearray(300 << 20)", "MiB of memory"),
    ("bytearray(8 << 30)", "MemoryError"),
    ("import time, tests.fuzz.driver as driver; driver.CASE_SECONDS = 0.4; end = time.process_time() + 0.6\n"
     "while time.process_time() < end: pass", "takes 0."),
    ("import os; os.abort()", "ends the process with -6"),
    ("import time; time.sleep(60)", "hangs: no end after 2 s"),
], ids=lambda value: value[:20])
def test_bad_outcomes_are_found(code: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real processes, but their reader of safetensors files does something bad with the second case."""
    source = tmp_path / "sitecustomize.py"
    source.write_text(f"""
def bad(path):
    from lcpu.kernels.errors import LcpuError
    if path.read_bytes() == {driver.case_bytes("safetensors", SEED, 1)!r}:
        exec({code!r}, {{"LcpuError": LcpuError}})
    return type("File", (), {{"close": lambda self: None}})(), {{}}
import lcpu.convert.safetensors_file as module
module.open_safetensors = bad
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if what.startswith("hangs"):
        monkeypatch.setattr(driver, "STALL_SECONDS", 2.0)
    result = driver.fuzz("safetensors", 4, SEED, 1, tmp_path / "failures")
    (failure,) = result.failures
    assert failure.number == 1
    assert what in failure.what
    assert failure.path.read_bytes() == driver.case_bytes("safetensors", SEED, 1)
    assert "--target safetensors --seed 1 --case 1" in str(failure)
    assert result.accepted + result.refused == 3
