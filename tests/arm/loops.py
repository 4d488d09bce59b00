"""Loops of Arm assembly, and the cycles that llvm-mca computes for them."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

_LABEL = re.compile(r"^\s*(\.?\w+):")
_BRANCH = re.compile(r"^\s*(?:b\.?\w*|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.?L?\w+?)b?\s*(?://.*)?$")
_ENCODED = re.compile(r"^\s*\.inst\s+\S+\s*//\s*")  # GCC's assembler text of instructions that its asm blocks spell out
_PRODUCT = re.compile(r"^\s*(?:[su]+dot|\w*mmla|fmla|bfdot|smull)\s")
_VECTOR_SPILL = re.compile(r"^\s*(?:ld|st)\w+\s+[qdsv]\d+.*\[sp\b")
_ATTRIBUTES = "-mattr=+dotprod,+i8mm,+bf16,+fullfp16"
_ROUNDS = 100

Loop = tuple[int, int]  # the first line and the last, a branch back


def find_mca() -> str | None:
    """The newest llvm-mca there is."""
    names = [f"llvm-mca-{version}" for version in range(30, 13, -1)]
    return next(filter(None, map(shutil.which, [*names, "llvm-mca"])), None)


def function(text: str, name: str = "") -> list[str]:
    """The lines of the function that multiplies most, of those whose label has this in it."""
    lines = [_ENCODED.sub("\t", line) for line in text.splitlines()]
    found = []
    for start, line in enumerate(lines):
        if re.match(rf"^[^\s.#/][^\s:]*{name}[^\s:]*:", line):
            end = next(i for i in range(start, len(lines)) if re.match(r"^\s*\.size\s|^\.Lfunc_end", lines[i]))
            found.append(lines[start:end])
    return max(found, key=products)


def loops(lines: list[str]) -> list[Loop]:
    labels: dict[str, int] = {}
    found = []
    for i, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = i
        elif (branch := _BRANCH.match(line)) and branch[1] in labels:
            found.append((labels[branch[1]], i))
    return found


def products(lines: list[str]) -> int:
    """How many instructions multiply and add."""
    return sum(bool(_PRODUCT.match(line)) for line in lines)


def spills(lines: list[str]) -> int:
    """How many instructions move vectors between registers and the stack."""
    return sum(bool(_VECTOR_SPILL.match(line)) for line in lines)


def innermost(lines: list[str]) -> list[Loop]:
    """Loops without loops in them, of those that compute."""
    found = [loop for loop in loops(lines) if products(lines[loop[0]: loop[1]]) >= 4]
    return [loop for loop in found if not any(other != loop and loop[0] <= other[0] and other[1] <= loop[1]
                                              for other in found)]


def unrolled(lines: list[str], depth: int, trips: tuple[int, ...]) -> list[str]:
    """One round of the loop that is `depth` loops outside of the busiest one, which is run through trips[0] times, the
    next one around it trips[1] times and so on. Loops beside these, for what is left over, count as empty."""
    busiest = max(innermost(lines), key=lambda loop: products(lines[loop[0]: loop[1]]))
    around = sorted((loop for loop in loops(lines) if loop[0] <= busiest[0] and busiest[1] <= loop[1]),
                    key=lambda loop: loop[1] - loop[0])
    nest = []
    for loop in around:  # several branches back to one label are one loop
        if nest and nest[-1][0] == loop[0]:
            nest[-1] = loop
        else:
            nest.append(loop)
    body = lines[nest[0][0]: nest[0][1] + 1]
    for level in range(depth):
        (start, end), (first, last) = nest[level + 1], nest[level]
        head, tail = lines[start:first], lines[last + 1: end + 1]
        body = _without_loops(head) + body * trips[level] + _without_loops(tail)
    return body


def _without_loops(lines: list[str]) -> list[str]:
    inside = {i for first, last in loops(lines) for i in range(first, last + 1)}
    return [line for i, line in enumerate(lines) if i not in inside]


@cache
def _cycles(mca: str, cpu: str, text: str) -> float:
    done = subprocess.run([mca, "-mtriple=aarch64-linux-gnu", f"-mcpu={cpu}", f"-iterations={_ROUNDS}", _ATTRIBUTES],
                          input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{mca} does not take this for {cpu}:\n{done.stderr[:2000]}")
    (cycles,) = re.findall(r"Total Cycles:\s+(\d+)", done.stdout)
    return int(cycles) / _ROUNDS


def cycles(mca: str, cpu: str, lines: list[str]) -> float:
    """Of one round of a loop, when it has run for a while. Branches are taken for free."""
    kept = [line for line in lines if not re.match(r"^\s*(\.|//|#|\w+:|$)", line) and not _BRANCH.match(line)]
    return _cycles(mca, cpu, "\n".join(kept))


def rate(mca: str, cpu: str, instruction: str) -> float:
    """How many of an instruction, "sdot v{}.4s, v30.16b, v31.16b", a processor executes in a cycle at most."""
    return 16 / cycles(mca, cpu, [instruction.format(i) for i in range(16)])


