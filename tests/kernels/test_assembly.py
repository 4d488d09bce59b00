"""Machine code for processors that this machine may not be: compiled and read, never executed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from lcpu.kernels.formats import FORMATS
from lcpu.kernels.isa import ISAS

from ..arm import loops

pytestmark = pytest.mark.skipif("LCPU_ISA" in os.environ, reason="the same whatever path this process has")

SCRIPT = """
import sys
from lcpu.kernels.formats import FORMATS
library = FORMATS[int(sys.argv[1])].matmul.compiled._library
print(library.get_asm_str() if sys.argv[2] == "assembly" else library.get_llvm_str())
"""
CALL = re.compile(r"^\s*(call|bl)", re.MULTILINE)
ARM = "aarch64-linux-gnu"
CROSS = Path(__file__).parents[1] / "arm" / "cross.py"


def matmul(what: str, format_name: str, isa: str, cache: Path, *, cpu: str | None = None) -> str:
    """The "assembly" or "ir" (LLVM's) of a format's matmul kernel, compiled in a process of its own."""
    (format,) = (f for f in FORMATS.values() if f.name == format_name)
    environment = {**os.environ, "LCPU_ISA": isa, "LCPU_CACHE_DIR": str(cache)}
    if cpu:
        features = ",".join(f"+{name}" for name in ISAS[isa].needs[0])
        environment |= {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(format.type_id), what], env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blocks_with(instruction: str, assembly: str) -> list[str]:
    """The basic blocks, from label to label, that have an instruction (a regular expression)."""
    blocks = re.split(r"^(?=[.\w]+:)", assembly, flags=re.MULTILINE)
    return [block for block in blocks if re.search(instruction, block)]


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="Numba compiles for its own family")
@pytest.mark.parametrize(
    ("format_name", "isa", "cpu", "register"),
    [("q4_0", "avx512-vnni", "znver4", "zmm"), ("q8_0", "avx512-vnni", "znver4", "zmm"),
     ("q4_0", "avx-vnni", "alderlake", "ymm")],
)
def test_vnni(format_name, isa, cpu, register, tmp_path):
    assembly = matmul("assembly", format_name, isa, tmp_path, cpu=cpu)
    dot = rf"vpdpbusd\s.*%{register}\d+$"
    loops = blocks_with("vpdpbusd", assembly)
    counts = [len(re.findall(dot, loop, re.MULTILINE)) for loop in loops]
    fused = rf"vfn?m(add|sub)\w*ps\s.*%{register}\d+$"
    assert max(len(re.findall(fused, loop, re.MULTILINE)) for loop in loops) >= 8  # sums of a tile of 8 tokens
    assert max(counts) >= 8 * 8  # 8 tokens, and 8 dot products of 4 values for each
    for loop, count in zip(loops, counts, strict=True):
        assert count == loop.count("vpdpbusd") > 0  # all of them as wide as the path says
        assert count % 8 == 0  # whole blocks: the loop over a block's quarters is unrolled
        assert re.search(rf"vcvtph2ps\s.*%{register}\d+$", loop, re.MULTILINE)
        assert re.search(fused, loop, re.MULTILINE)
        assert not CALL.search(loop)
        if register == "zmm":  # 32 of them: sums of a block stay there, only totals may wait on the stack
            assert 4 * len(re.findall(r"%zmm\d+, -?\d*\(%r[sb]p\)", loop)) <= count


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="Numba compiles for its own family")
@pytest.mark.parametrize("format_name", ["q4_0", "q4_k", "i2_s"])
def test_amx(format_name, tmp_path):
    assembly = matmul("assembly", format_name, "avx512-amx", tmp_path, cpu="sapphirerapids")
    assert assembly.count("ldtilecfg") == assembly.count("tilerelease") > 0
    loops = blocks_with("tdpbssd", assembly)
    sums = [set(re.findall(r"tdpbssd\s.*%(tmm\d)$", loop, re.MULTILINE)) for loop in loops]
    assert max(map(len, sums)) == 4  # products that do not wait for each other
    for loop in loops:
        assert not re.search(r"vmovups\s+%zmm\d+, -?\d*\(%r[sb]p\)", loop)  # sums stay in registers


def arm_assembly(text: str) -> str:
    """LLVM's IR for this processor, as instructions of another family."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(ARM).create_target_machine(cpu="cortex-a76", opt=2)
    text = re.sub(r"^target triple = .*$", f'target triple = "{ARM}"', text, flags=re.MULTILINE)
    text = re.sub(r"^target datalayout = .*$", f'target datalayout = "{machine.target_data}"', text, flags=re.MULTILINE)
    module = llvm.parse_assembly(text)
    module.verify()
    return machine.emit_assembly(module)


@pytest.mark.parametrize("format_name", ["q4_0", "f16"])
def test_aarch64(format_name, tmp_path):
    """The generic path, in the instructions of another family."""
    text = arm_assembly(matmul("ir", format_name, "generic", tmp_path))
    loops = blocks_with(r"fmla\s+v\d+\.4s", text)
    assert max(len(re.findall(r"fmla\s+v\d+\.4s", loop)) for loop in loops) >= 8  # for 8 tokens
    for loop in loops:
        assert not CALL.search(loop)
        assert re.search(r"fcvtl\s+v\d+\.4s, v\d+\.4h", loop)  # float16 to float32
        if format_name == "q4_0":
            assert re.search(r"\b(mul|mla|[su]mull2?|[su]mlal2?|[su]dot|usdot)\s+v\d+\.", loop)  # of integers


def test_the_clock_on_aarch64(tmp_path):
    """The timer, which programs may read, and not the counter of cycles, which most systems keep to themselves."""
    script = "from lcpu.kernels.profile import read_clock; print(read_clock.compiled._library.get_llvm_str())"
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "LCPU_CACHE_DIR": str(tmp_path)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"mrs\s+x\d+, CNTVCT_EL0", arm_assembly(done.stdout), re.IGNORECASE)


def for_arm(isa: str, *wanted: str, triple: str = ARM, cpu: str = "neoverse-n1") -> list[str]:
    """The assembly of what arm/cross.py knows, on an Arm processor that has what the path needs."""
    features = ",".join(f"+{name}" for name in ISAS[isa].needs[0])
    done = subprocess.run([sys.executable, str(CROSS), cpu, features, "--triple", triple, *wanted],
                          env={**os.environ, "LCPU_ISA": isa}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("== ")[1:]


@pytest.mark.parametrize(
    ("isa", "dot", "sizes"),
    [("neon-dotprod", "sdot", (8, 4, 2, 1)), ("neon-i8mm", "smmla", (8, 4, 2)), ("neon-i8mm", "usdot", (1,))])
def test_dot_products_on_arm(isa, dot, sizes):
    """A tile's sums stay in registers. Of a dot product, an activation is a part of the instruction that takes it."""
    tiles = [f"{name}:{tokens}" for name in ("q8_0", "q4_0", "i2_s", "q4_k", "q6_k") for tokens in sizes]
    for name, text in zip(tiles, for_arm(isa, *tiles), strict=True):
        wanted = "sdot" if name == "q8_0:1" and dot == "usdot" else dot
        lines = loops.function(text)
        busiest = max(loops.innermost(lines), key=lambda loop: loops.products(lines[loop[0]: loop[1]]))
        body = lines[busiest[0]: busiest[1]]
        token = r"16b" if dot == "smmla" else r"4b\[\d\]"
        found = [line for line in body if re.match(rf"\s*{wanted}\s+v\d+\.4s, v\d+\.16b, v\d+\.{token}", line)]
        others = [line for line in body if re.match(r"\s*fmla", line)]
        assert len(found) == loops.products(body) - len(others) >= (16 if dot == "smmla" else 32)
        assert not CALL.search("\n".join(body))
        assert loops.spills(body) == 0, name


def test_conversions_and_bfloat16_on_arm():
    (halves,), (pairs,) = for_arm("neon", "f16:8", cpu="cortex-a72"), for_arm("neon-dotprod", "bf16:8")
    assert re.search(r"fcvtl\s+v\d+\.4s, v\d+\.4h", halves)
    assert re.search(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]", halves + pairs)


@pytest.mark.parametrize(("triple", "isa", "calls"), [
    ("aarch64-linux-gnu", "neon-dotprod", ("yield", "syscall")),
    ("arm64-apple-macosx14.0", "neon-dotprod", ("yield", "__ulock_wait", "__ulock_wake")),
    ("aarch64-pc-windows-msvc", "neon-dotprod", ("yield", "WaitOnAddress", "WakeByAddressAll")),
])
def test_waiting_on_other_systems(triple, isa, calls):
    (text,) = for_arm(isa, "threads", triple=triple)
    for call in calls:
        assert call in text
    assert "sched_yield" not in text
