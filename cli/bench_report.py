"""The output of `lcpu bench`: llama-bench's table, or its fields as CSV, JSON, JSON lines or SQL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import __version__
from . import console

if TYPE_CHECKING:
    from ..engine.benchmark import Case, Result
    from ..kernels.probe import Peaks

R = TypeVar("R")

Value = int | float | str | None
Fields = dict[str, Value]

# Columns of the table: title and width, to the left if negative. llama-bench's, and then lcpu's own.
_COLUMNS = {"model": -30, "size": 10, "params": 10, "backend": -11, "threads": 7, "n_batch": 7, "n_ubatch": 8,
            "type_k": -6, "type_v": -6, "test": 15, "t/s": 20, "step cost": 9, "speed-up": 8, "of bandwidth": 12,
            "of peak": 8}  # fmt: skip
# llama-batched-bench's, which many sequences have in the place of others.
_PARALLEL_COLUMNS = {"PP": 6, "TG": 6, "B": 4, "N_KV": 6, "T_PP s": 8, "S_PP t/s": 9, "T_TG s": 8, "S_TG t/s": 9,
                     "T s": 8, "S t/s": 9}  # fmt: skip
_NOT_PARALLEL = ("test", "t/s", "of bandwidth", "of peak")
OPTIONAL_COLUMNS = ("n_batch", "n_ubatch", "type_k", "type_v", "step cost", "speed-up")
_WIDTHS = _COLUMNS | _PARALLEL_COLUMNS
LARGEST_SPREAD = 0.1  # of the runs of a test, on a quiet machine
_SQL_TABLE = "lcpu_bench"  # not llama_bench: both may go into one database, and their columns differ
_SQL_TYPES: dict[type, str] = {int: "INTEGER", str: "TEXT"}  # and REAL


@dataclass(frozen=True)
class Run:
    """A model, loaded with a number of threads: the facts that its results share."""

    filename: str
    description: str
    size: int  # bytes of all tensors
    params: int
    cpu: str
    isa: str
    threads: int
    load_seconds: float
    peaks: Peaks
    cache_types: tuple[str, str] = ("f16", "f16")  # of keys and values


@dataclass(frozen=True)
class Row:
    """A result, with its settings and the time of the measurement."""

    run: Run
    result: Result
    n_batch: int
    n_ubatch: int
    test_time: str  # RFC 3339


def settings(run: Run, case: Case, n_batch: int, n_ubatch: int, test_time: str) -> Fields:
    """What is measured: llama-bench's fields as far as they apply here, with its names and in its order."""
    return {
        "build_commit": __version__,
        "cpu_info": run.cpu,
        "backends": "CPU",
        "model_filename": run.filename,
        "model_type": run.description,
        "model_size": run.size,
        "model_n_params": run.params,
        "n_batch": n_batch,
        "n_ubatch": n_ubatch,
        "n_threads": run.threads,
        "type_k": run.cache_types[0],
        "type_v": run.cache_types[1],
        "n_prompt": case.prompt,
        "n_gen": case.generated,
        "n_depth": case.depth,
        "test_time": test_time,
    }


def peak_fields(peaks: Peaks) -> Fields:
    return {"memory_bandwidth": peaks.bandwidth or None, "int8_peak": peaks.int8, "float32_peak": peaks.float32}


def spread_fields(samples_ns: Sequence[int]) -> Fields:
    """How far the runs of a test lie apart, and whether that is so far that something else must have disturbed them."""
    from ..engine.benchmark import spread

    found = spread(samples_ns)
    return {"spread": found, "disturbed": int(found is not None and found > LARGEST_SPREAD)}


def fields(row: Row) -> Fields:
    """llama-bench's fields, and then lcpu's own."""
    run, result, case = row.run, row.result, row.result.case
    return {
        **settings(run, case, row.n_batch, row.n_ubatch, row.test_time),
        "avg_ns": round(result.avg_ns),
        "stddev_ns": round(result.stddev_ns),
        "avg_ts": result.avg_ts,
        "stddev_ts": result.stddev_ts,
        "test": case.name,
        "isa": run.isa,
        "load_seconds": run.load_seconds,
        "step_tokens": case.step,
        "step_cost": result.step_cost,
        "draft_tokens": case.draft if case.acceptance is not None else None,  # 0: as many as the engine chooses
        "acceptance": case.acceptance,
        "speed_up": result.speed_up,
        **_parallel_fields(result),
        "bandwidth_share": result.bandwidth_share,
        "peak_share": result.peak_share,
        **peak_fields(run.peaks),
        **spread_fields(result.samples_ns),
    }


def _parallel_fields(result: Result) -> Fields:
    """llama-batched-bench's, by its names; seconds, and tokens per second. None for what is not many sequences."""
    case, prompt, generation = result.case, result.prompt_seconds, result.generation_seconds
    many = case.sequences > 0
    return {
        "pl": case.sequences if many else None,
        "is_pp_shared": int(case.shared_prompt) if many else None,
        "n_kv": case.tokens if many else None,
        "t_pp": prompt,
        "speed_pp": case.prompt_tokens / prompt if prompt and case.prompt else None,
        "t_tg": generation,
        "speed_tg": case.generated_tokens / generation if generation and case.generated else None,
    }


def counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _with_samples(row: Row) -> dict[str, Any]:
    return {**fields(row), "samples_ns": row.result.samples_ns, "samples_ts": row.result.samples_ts}


# ---- the table for people ----


def _cells(row: Row) -> dict[str, str]:
    run, result = row.run, row.result
    return {
        "model": run.description,
        "size": f"{run.size / 2**20:.2f} MiB" if run.size < 2**30 else f"{run.size / 2**30:.2f} GiB",
        "params": f"{run.params / 1e6:.2f} M" if run.params < 1e9 else f"{run.params / 1e9:.2f} B",
        "backend": run.isa,
        "threads": str(run.threads),
        "n_batch": str(row.n_batch),
        "n_ubatch": str(row.n_ubatch),
        "type_k": run.cache_types[0],
        "type_v": run.cache_types[1],
        **_parallel_cells(row),
        "test": result.case.name,
        "t/s": f"{result.avg_ts:.2f} ± {result.stddev_ts:.2f}",
        "step cost": "" if result.step_cost is None else f"{result.step_cost:.2f}",
        "speed-up": "" if result.speed_up is None else f"{result.speed_up:.2f}",
        "of bandwidth": "" if result.bandwidth_share is None else f"{result.bandwidth_share:.1%}",
        "of peak": "" if result.peak_share is None else f"{result.peak_share:.1%}",
    }


def _parallel_cells(row: Row) -> dict[str, str]:
    def shown(value: Value, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    case, result, found = row.result.case, row.result, _parallel_fields(row.result)
    return {
        "PP": str(case.prompt),
        "TG": str(case.generated),
        "B": str(case.sequences),
        "N_KV": str(case.tokens),
        "T_PP s": shown(found["t_pp"], 3),
        "S_PP t/s": shown(found["speed_pp"], 2),
        "T_TG s": shown(found["t_tg"], 3),
        "S_TG t/s": shown(found["speed_tg"], 2),
        "T s": shown(result.avg_ns / 1e9, 3),
        "S t/s": shown(result.avg_ts, 2),
    }


def _table_line(columns: Sequence[str], texts: Sequence[str]) -> str:
    padded = (f"{text:{'<' if _WIDTHS[name] < 0 else '>'}{abs(_WIDTHS[name])}}"
              for name, text in zip(columns, texts, strict=True))  # fmt: skip
    return f"| {' | '.join(padded)} |\n"


def _table_head(columns: Sequence[str], row: Row) -> str:
    rules = ["-" * (abs(_WIDTHS[name]) - 1) + ("-" if _WIDTHS[name] < 0 else ":") for name in columns]
    return _table_line(columns, columns) + _table_line(columns, rules)


def _table_row(columns: Sequence[str], row: Row) -> str:
    cells = _cells(row)
    return _table_line(columns, [cells[name] for name in columns])


def _table_end(rows: Sequence[Row]) -> str:
    return footer([(row.run, row.result.case.name, row.result.samples_ns) for row in rows])


def footer(tests: Sequence[tuple[Run, str, Sequence[int]]]) -> str:
    """The peaks that the shares refer to, and which tests, by their names and times, something else has disturbed."""
    best = {run.threads: run.peaks for run, _, _ in tests}  # they only grow
    lines = [f"measured, {counted(threads)}: {_bandwidth(peaks)}, {peaks.int8 / 1e9:.0f} int8 and "
             f"{peaks.float32 / 1e9:.0f} float32 Gop/s" for threads, peaks in best.items()]
    disturbed = [f"{name} with {counted(run.threads)}" for run, name, samples_ns in tests
                 if spread_fields(samples_ns)["disturbed"]]
    if disturbed:
        lines.append(f"disturbed: {', '.join(dict.fromkeys(disturbed))}: the runs differ by more than "
                     f"{LARGEST_SPREAD:.0%}; measure again when nothing else uses the machine")
    return "\n" + "\n".join([*lines, f"build: lcpu {__version__}"]) + "\n"


def _bandwidth(peaks: Peaks) -> str:
    if not peaks.bandwidth:
        return "too little memory is left to measure its bandwidth"
    return f"{peaks.bandwidth / 1e9:.1f} GB/s from memory"


# ---- the others, for programs ----


def _csv_line(values: Sequence[Value], quoting: int) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=quoting, lineterminator="\n").writerow(values)  # type: ignore[arg-type]
    return line.getvalue()


def _csv_head(columns: Sequence[str], row: Row) -> str:
    return _csv_line(list(fields(row)), csv.QUOTE_MINIMAL)


def _csv_row(columns: Sequence[str], row: Row) -> str:
    return _csv_line(list(fields(row).values()), csv.QUOTE_ALL)


def _json_row(content: dict[str, Any]) -> str:
    lines = json.dumps(content, ensure_ascii=False, indent=2).splitlines()
    return "\n".join("  " + line for line in lines)


def _json_line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _sql_head(columns: Sequence[str], row: Row) -> str:
    types = (f"  {name} {_SQL_TYPES.get(type(value), 'REAL')}" for name, value in fields(row).items())
    return f"CREATE TABLE IF NOT EXISTS {_SQL_TABLE} (\n" + ",\n".join(types) + "\n);\n\n"


def _sql_row(columns: Sequence[str], row: Row) -> str:
    values = ", ".join(map(_sql_value, fields(row).values()))
    return f"INSERT INTO {_SQL_TABLE} ({', '.join(fields(row))}) VALUES ({values});\n"


def _sql_value(value: Value) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


# ---- all of them ----


@dataclass(frozen=True)
class Format(Generic[R]):
    """What is written before the first row, for each row, between two rows, and after the last row."""

    row: Callable[[Sequence[str], R], str]
    head: Callable[[Sequence[str], R], str] = lambda columns, row: ""
    between: str = ""
    end: Callable[[Sequence[R]], str] = lambda rows: ""


def json_formats(content: Callable[[R], dict[str, Any]]) -> dict[str, Format[R]]:
    """One document, or one for each row."""
    return {
        "json": Format(lambda columns, row: _json_row(content(row)), head=lambda columns, row: "[\n", between=",\n",
                       end=lambda rows: "\n]\n"),
        "jsonl": Format(lambda columns, row: _json_line(content(row))),
    }


FORMATS = {
    "md": Format(_table_row, head=_table_head, end=_table_end),
    "csv": Format(_csv_row, head=_csv_head),
    **json_formats(_with_samples),
    "sql": Format(_sql_row, head=_sql_head),
}


def columns(optional: Sequence[str] = (), *, parallel: bool = False) -> list[str]:
    """Those of the table. optional: which of OPTIONAL_COLUMNS it has; parallel: whether it is of many sequences."""
    found = [name for name in _COLUMNS if name not in OPTIONAL_COLUMNS or name in optional]
    return [name for name in found if name not in _NOT_PARALLEL] + list(_PARALLEL_COLUMNS) if parallel else found


class Report(Generic[R]):
    """Writes rows to stdout as they are measured. Nothing is written before the first one."""

    def __init__(self, format: Format[R], columns: Sequence[str] = ()) -> None:
        self._format, self._columns = format, columns
        self.rows: list[R] = []

    def add(self, row: R) -> None:
        before = self._format.between if self.rows else self._format.head(self._columns, row)
        self.rows.append(row)
        console.write(before + self._format.row(self._columns, row))

    def end(self) -> None:
        if self.rows:
            console.write(self._format.end(self.rows))
