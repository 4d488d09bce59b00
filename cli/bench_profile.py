"""The output of `lcpu bench --profile`: a table of operations for each test, or the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .bench_options import BATCH, UBATCH
from .bench_report import Format, Run, counted, footer, json_formats, peak_fields, settings, spread_fields

if TYPE_CHECKING:
    from ..engine.benchmark import Case
    from ..engine.profile import Operation, Profile

_COLUMNS = ("operation", "count", "ms", "share", "GB/s", "Gop/s", "barriers", "waiting ms")
_LEAST_WIDTHS = (9, 5, 8, 6, 6, 7, 8, 10)


@dataclass(frozen=True)
class ProfileRow:
    """The profile of one phase of a test, with its settings and the time of the measurement."""

    run: Run
    case: Case
    profile: Profile
    n_batch: int
    n_ubatch: int
    test_time: str  # RFC 3339


def _fields(row: ProfileRow) -> dict[str, Any]:
    """llama-bench's fields, and then lcpu's own. Times are of a step, in the mean."""
    profile = row.profile
    return {
        **settings(row.run, row.case, row.n_batch, row.n_ubatch, row.test_time),
        "test": row.case.name,
        "isa": row.run.isa,
        "load_seconds": row.run.load_seconds,
        "phase": profile.phase,
        "avg_ts": profile.tokens_per_second,
        "steps": profile.steps,
        "step_ns": round(1e9 * profile.step_seconds),
        "launch_ns": round(1e9 * profile.launch_seconds),
        **peak_fields(row.run.peaks),
        **spread_fields(profile.samples_ns),
        "operations": [_operation_fields(profile, operation) for operation in profile.operations],
        "samples_ns": profile.samples_ns,
    }


def _operation_fields(profile: Profile, operation: Operation) -> dict[str, Any]:
    return {
        "name": operation.name,
        "count": operation.instructions,
        "ns": round(1e9 * operation.seconds),
        "share": operation.seconds / profile.step_seconds,
        "bytes": operation.bytes,
        "arithmetic": operation.arithmetic,
        "bytes_per_second": _rate(operation.bytes, operation.seconds),
        "arithmetic_per_second": _rate(operation.arithmetic, operation.seconds),
        "barriers": operation.barriers,
        "waiting_ns": round(1e9 * operation.waiting),
        "work_ns": [round(1e9 * seconds) for seconds in operation.work],  # of each thread
    }


def _rate(amount: float | None, seconds: float) -> float | None:
    return amount / seconds if amount and seconds > 0 else None


# ---- the table for people ----


def _table(columns: Sequence[str], row: ProfileRow) -> str:
    """A title and a line for each operation; then what is beside them, and the whole step."""
    profile, step = row.profile, row.profile.step_seconds
    lines = [_cells(operation.name, operation.instructions, operation.seconds, step, operation.bytes,
                    operation.arithmetic, operation.barriers, operation.waiting) for operation in profile.operations]
    lines.append(_cells("launch", None, profile.launch_seconds, step))
    lines.append(_cells("step", sum(each.instructions for each in profile.operations), step, step,
                        sum(each.bytes or 0 for each in profile.operations),
                        sum(each.arithmetic or 0 for each in profile.operations),
                        sum(each.barriers for each in profile.operations),
                        sum(each.waiting for each in profile.operations)))
    widths = [max(least, *(len(line[i]) for line in lines)) for i, least in enumerate(_LEAST_WIDTHS)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return f"{_title(row)}\n\n" + "".join(_line(widths, cells) for cells in [_COLUMNS, rules, *lines])


def _title(row: ProfileRow) -> str:
    """What is measured, with the flags that differ from their defaults, and how fast it is."""
    run, case, profile = row.run, row.case, row.profile
    parts = [run.description, run.isa, counted(run.threads), case.name]
    if case.prompt and case.generated:
        parts.append(profile.phase)
    if (row.n_batch, row.n_ubatch) != (BATCH, UBATCH):
        parts.append(f"-b {row.n_batch} -ub {row.n_ubatch}")
    if run.cache_types != ("f16", "f16"):
        parts.append("-ctk {} -ctv {}".format(*run.cache_types))
    step = profile.step_seconds
    return f"{', '.join(parts)}: {1e3 * step:.{_digits(step)}f} ms a step, {profile.tokens_per_second:.2f} t/s"


def _cells(name: str, count: int | None, seconds: float, step: float, nbytes: float | None = None,
           arithmetic: float | None = None, barriers: int | None = None, waiting: float | None = None) -> list[str]:
    digits = _digits(step)
    bandwidth, rate = _rate(nbytes, seconds), _rate(arithmetic, seconds)
    return [
        name,
        "" if count is None else str(count),
        f"{1e3 * seconds:.{digits}f}",
        f"{seconds / step:.1%}",
        "" if bandwidth is None else f"{bandwidth / 1e9:.1f}",
        "" if rate is None else f"{rate / 1e9:.1f}",
        "" if barriers is None else str(barriers),
        "" if waiting is None else f"{1e3 * waiting:.{digits}f}",
    ]


def _digits(step: float) -> int:
    """Of milliseconds: enough for the small parts of a small step."""
    return 2 if step > 0.01 else 4


def _line(widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = [f"{cells[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in
                                            zip(cells[1:], widths[1:], strict=True))]
    return f"| {' | '.join(padded)} |\n"


def _end(rows: Sequence[ProfileRow]) -> str:
    return footer([(row.run, row.case.name, row.profile.samples_ns) for row in rows])


FORMATS: dict[str, Format[ProfileRow]] = {
    "md": Format(_table, between="\n", end=_end),
    **json_formats(_fields),
}
