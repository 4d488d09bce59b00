"""Which path is chosen, and what a wrong LCPU_ISA says."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace

import pytest

from lcpu.kernels import isa
from lcpu.kernels.errors import LcpuError
from lcpu.kernels.matmul import PANEL_GROUP

AVX2 = ("avx2", "fma", "f16c")
NEON = ("neon", "fp-armv8")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")


def chosen(monkeypatch: pytest.MonkeyPatch, wanted: str | None, features: tuple[str, ...] | None = None) -> isa.Isa:
    """What a new process would choose, on this machine or on one with the given features."""
    monkeypatch.delenv("LCPU_ISA", raising=False)
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    if wanted is not None:
        monkeypatch.setenv("LCPU_ISA", wanted)
    if features is not None:
        monkeypatch.setattr(isa, "host_features", lambda: frozenset(features))
    return isa.active.__wrapped__()


@pytest.mark.parametrize(
    ("features", "best"),
    [(("f16c",), "generic"), (("avx2", "f16c"), "generic"), (AVX2, "avx2"), ((*AVX2, "avxvnni"), "avx-vnni"),
     (AVX512, "avx512-vnni"), ((*AVX512, "avxvnni"), "avx512-vnni"), (AVX512[:-1], "avx2"),
     (NEON, "neon"), ((*NEON, "dotprod"), "neon-dotprod"), ((*NEON, "dotprod", "i8mm"), "neon-i8mm"),
     ((*NEON, "i8mm"), "neon")],
)
def test_the_best_that_the_processor_has(monkeypatch, features, best):
    assert chosen(monkeypatch, None, features).name == best


@pytest.mark.parametrize("name", isa.available())
def test_any_that_the_processor_has_can_be_asked_for(monkeypatch, name):
    asked = chosen(monkeypatch, f" {name.upper()} ")
    assert asked.name == name
    assert "LCPU_ISA" in asked.reason


def test_amx_is_taken_with_the_permission_of_the_system(monkeypatch):
    features = (*AVX512, "amx-tile", "amx-int8")
    monkeypatch.setattr(isa, "_amx_permitted", lambda: True)
    assert chosen(monkeypatch, None, features).name == "avx512-amx"
    monkeypatch.setattr(isa, "_amx_permitted", lambda: False)
    assert chosen(monkeypatch, None, features).name == "avx512-vnni"
    with pytest.raises(LcpuError, match="this processor lacks"):
        chosen(monkeypatch, "avx512-amx", features)


def test_an_empty_choice_is_none(monkeypatch):
    assert chosen(monkeypatch, " ") == chosen(monkeypatch, None)


@pytest.mark.parametrize("features", [("f16c",), AVX2, AVX512])
def test_generic_is_always_there(monkeypatch, features):
    assert chosen(monkeypatch, "generic", features).name == "generic"
    assert "generic" in isa.available()


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="F16C belongs to x86")
@pytest.mark.parametrize("wanted", [None, "generic"])
def test_without_any_path_the_error_says_why(monkeypatch, wanted):
    with pytest.raises(LcpuError, match="no F16C"):
        chosen(monkeypatch, wanted, ("sse2",))


@pytest.mark.parametrize(("wanted", "says"), [("sse9", "is unknown"), ("avx512-vnni", "this processor lacks")])
def test_what_cannot_be_had_is_an_error_that_names_the_choices(monkeypatch, wanted, says):
    with pytest.raises(LcpuError, match=says) as error:
        chosen(monkeypatch, wanted, AVX2)
    message = str(error.value)
    assert message.startswith(f"LCPU_ISA={wanted} ")
    assert "\n" not in message
    for name in isa.available():
        assert name in message


def test_the_error_comes_when_kernels_are_imported():
    run = subprocess.run([sys.executable, "-c", "import lcpu.kernels.simd"], env={**os.environ, "LCPU_ISA": "mmx"},
                         capture_output=True, text=True)
    assert "LcpuError: LCPU_ISA=mmx is unknown; this machine can run: " in run.stderr


def test_the_reason_names_the_processor(monkeypatch):
    assert "offers" in chosen(monkeypatch, None).reason


@pytest.mark.parametrize(("features", "cpu"), [({"neon", "dotprod", "i8mm"}, "neoverse-n1"), ({"neon"}, "somebody")])
def test_on_arm_llvm_is_told_of_what_it_does_not_see(monkeypatch, features, cpu):
    monkeypatch.setattr(isa, "on_arm", lambda: True)
    monkeypatch.setattr(isa, "system_features", lambda: frozenset(features))
    monkeypatch.setattr(isa, "host_features", lambda: frozenset(features))
    monkeypatch.setattr(isa.llvm, "get_host_cpu_name", lambda: "somebody")
    target, said = isa.arm_target()
    assert target == cpu
    assert {f"+{name}" for name in features} <= set(said.split(","))
    assert "(" + ", ".join(sorted(features)) + ")" in chosen(monkeypatch, None, tuple(features)).reason


def test_elsewhere_llvm_sees_itself(monkeypatch):
    monkeypatch.setattr(isa, "on_arm", lambda: False)
    assert isa.arm_target() == (None, None)


@pytest.mark.parametrize("name", ["avx512-vnni", "avx-vnni", "avx2"])
def test_what_is_tuned_for_a_family_changes_only_shapes_and_prefetching(monkeypatch, name):
    monkeypatch.setattr(isa.llvm, "get_host_cpu_name", lambda: "znver9")
    tuned = chosen(monkeypatch, name, (*AVX512, "avxvnni"))
    monkeypatch.setattr(isa.llvm, "get_host_cpu_name", lambda: "sapphirerapids")
    plain = chosen(monkeypatch, name, (*AVX512, "avxvnni"))
    assert tuned != plain
    assert replace(tuned, tile_panels=plain.tile_panels, prefetch=plain.prefetch, reason=plain.reason) == plain
    assert all(PANEL_GROUP % panels == 0 for panels in tuned.tile_panels)


@pytest.mark.parametrize(("features", "other", "has"), [
    (AVX512, "avx2", False), ((*AVX512, "avx512bf16"), "avx2", True),
    ((*NEON, "dotprod", "i8mm"), "neon", False), ((*NEON, "dotprod", "i8mm", "bf16"), "neon", True)])
def test_bfloat16_has_its_instruction_on_the_best_path_only(monkeypatch, features, other, has):
    assert chosen(monkeypatch, None, features).bf16 == has
    assert not chosen(monkeypatch, other, features).bf16
