"""How many cycles matmuls take on Arm processors: computed from their code by llvm-mca, not measured.

    python -m tests.benchmarks.arm [--llama-cpp FOLDER] [--path neon-dotprod] [--type q8_0] [--cpu neoverse-n1]

A product is 32 values of 4 rows with 8 tokens, once all is in the first-level cache. `of peak` is the share of what the
unit for these products can do. `spills` are vectors that wait on the stack. FOLDER is llama.cpp's source. Its repacked
kernels are compiled by aarch64-linux-gnu-g++, for 8 tokens, or for 4 of them twice; `16 tokens` are those that take as
many at once. Needs llvm-mca (Debian's llvm-19 knows most processors).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..arm import loops

ARM = Path(loops.__file__).parent
CPUS = ("neoverse-n1", "neoverse-v1", "neoverse-v2", "cortex-a76", "apple-m1")
CPU = "neoverse-n1"  # which all of these are compiled for (isa.arm_target)
FEATURES = {"neon": "+neon", "neon-dotprod": "+neon,+dotprod,+fullfp16",
            "neon-i8mm": "+neon,+dotprod,+fullfp16,+i8mm,+bf16"}
FMA, DOT = "fmla v{}.4s, v30.4s, v31.s[1]", "sdot v{}.4s, v30.16b, v31.16b"
UNITS = {"neon": (DOT, 16), "neon-dotprod": (DOT, 16),  # and how many products that is
         "neon-i8mm": ("smmla v{}.4s, v30.16b, v31.16b", 32)}
# Of a type: values of a round of our loop, the loops around the busiest one that belong to it and their rounds, and
# products of a multiplying instruction for a row.
OURS = {"q8_0": (32, 0, ()), "q4_0": (32, 0, ()),
        "q4_k": (256, 1, (4,)), "q6_k": (256, 1, (4,)), "i2_s": (128, 1, (2,)),
        "f16": (32, 1, (8,))}
# llama.cpp's kernel, rows and tokens of it, the loop (the busiest is 0), and the same as above.
THEIRS = {
    "neon-dotprod": {"q8_0": ("gemm_q8_0_4x4_q8_0", 4, 4, 0, 32, 0, ()),
                     "q4_0": ("gemm_q4_0_4x4_q8_0", 4, 4, 1, 32, 0, ()),
                     "q4_0 16 tokens": ("gemm_q4_0_4x4_q8_0", 4, 16, 0, 32, 0, ()),
                     "q4_k": ("gemm_q4_K_8x4_q8_K", 8, 4, 0, 256, 1, (4,)),
                     "q6_k": ("gemm_q6_K_8x4_q8_K", 8, 4, 0, 256, 2, (4, 2))},
    "neon-i8mm": {"q8_0": ("gemm_q8_0_4x8_q8_0", 4, 4, 0, 32, 0, ()),
                  "q4_0": ("gemm_q4_0_4x8_q8_0", 4, 4, 1, 32, 0, ()),
                  "q4_0 16 tokens": ("gemm_q4_0_4x8_q8_0", 4, 16, 0, 32, 0, ()),
                  "q4_k": ("gemm_q4_K_8x8_q8_K", 8, 4, 0, 256, 1, (4,)),
                  "q6_k": ("gemm_q6_K_8x8_q8_K", 8, 4, 0, 256, 2, (4, 2))},
}
ARCHITECTURE = {"neon-dotprod": "armv8.2-a+dotprod+fp16", "neon-i8mm": "armv8.2-a+dotprod+fp16+i8mm+bf16"}
UNIT = 32 * 4 * 8  # of a product


def our_tiles(path: str, types: list[str]) -> dict[str, tuple[list[str], int]]:
    """Of each type the assembly of its tile of 8 tokens or fewer, and how many results of 4 rows it computes."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run([sys.executable, str(ARM / "cross.py"), CPU, FEATURES[path], *(f"{t}:8" for t in types)],
                              env=os.environ | {"LCPU_ISA": path, "LCPU_CACHE_DIR": cache}, capture_output=True,
                              text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = {}
    for part in done.stdout.split("== ")[1:]:
        head, _, text = part.partition("\n")
        name, results = head.split()
        name = name.partition(":")[0]
        found[name] = (loops.function(text), int(results))
    return found


def their_assembly(folder: Path, path: str) -> str:
    ggml = folder / "ggml"
    source = ggml / "src/ggml-cpu/arch/arm/repack.cpp"
    done = subprocess.run(["aarch64-linux-gnu-g++", "-O3", "-std=c++17", "-DNDEBUG", f"-march={ARCHITECTURE[path]}",
                           f"-mtune={'neoverse-n1' if path == 'neon-dotprod' else 'neoverse-v1'}", "-S", "-o", "-",
                           *(f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu")), str(source)],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def their_cycles(mca: str, cpu: str, text: str, kernel: tuple) -> tuple[float, int]:
    """Cycles of a product, and spills of the loop."""
    name, rows, tokens, which, values, depth, trips = kernel
    lines = loops.function(text, name)
    if which:  # the loop for the last few tokens: it has fewer products than the others
        chosen = sorted(loops.innermost(lines), key=lambda loop: -loops.products(lines[loop[0]: loop[1]]))[which]
        lines = lines[chosen[0]: chosen[1] + 1]
    body = loops.unrolled(lines, depth, trips)
    return loops.cycles(mca, cpu, body) * UNIT / (values * rows * tokens), loops.spills(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-cpp", type=Path, metavar="FOLDER")
    parser.add_argument("--path", action="append", choices=FEATURES)
    parser.add_argument("--type", action="append", choices=OURS)
    parser.add_argument("--cpu", action="append")
    options = parser.parse_args()
    mca = loops.find_mca() or sys.exit("llvm-mca is not installed (Debian: llvm-19)")
    for path in options.path or ("neon-dotprod", "neon-i8mm"):
        report(mca, path, options.type or list(OURS), options.cpu or CPUS, options.llama_cpp)


def report(mca: str, path: str, types: list[str], cpus: list[str] | tuple[str, ...], folder: Path | None) -> None:
    compiled = our_tiles(path, types)
    theirs = their_assembly(folder, path) if folder and path in THEIRS else ""
    print(f"\n## {path}: cycles of 32 x 4 x 8 products\n\n| type | processor | lcpu | of peak | spills | llama.cpp "
          "| ratio | 16 tokens | ratio |\n|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for cpu in cpus:
        for name in types:
            lines, results = compiled[name]
            values, depth, trips = OURS[name]
            body = loops.unrolled(lines, depth, trips)
            ours = loops.cycles(mca, cpu, body) * UNIT / (values * 4 * results)
            unit, each = (FMA, 4) if name == "f16" else UNITS[path]
            share = UNIT / each / loops.rate(mca, cpu, unit) / ours
            cells = [name, cpu, f"{ours:.1f}", f"{share:.0%}", str(loops.spills(body))]
            for key in (name, f"{name} 16 tokens"):
                if theirs and key in THEIRS[path]:
                    other, _ = their_cycles(mca, cpu, theirs, THEIRS[path][key])
                    cells += [f"{other:.1f}", f"{ours / other:.2f}"]
                else:
                    cells += ["", ""]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
