"""The figure of `lcpu bench --plot`, drawn with matplotlib: tokens per second as bars, or speed-ups as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernels.errors import LcpuError
from .bench_report import Row, counted
from .options import UsageError

if TYPE_CHECKING:
    from ..engine.benchmark import Result

# Prefill is many times faster than decode: kinds of tests have axes of their own.
_KINDS = {"prefill": "Prefill", "decode": "Decode", "step": "Decode, several tokens a step", "both": "Prefill + decode"}


def check(path: Path) -> None:
    """Raises an error before the measurements if the figure cannot be drawn."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LcpuError("--plot needs matplotlib, which is not installed: pip install 'matplotlib>=3.8,<4'") from None
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise UsageError(f"Invalid value for '--plot': {path} must end in one of {', '.join(sorted(known))}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"Invalid value for '--plot': the folder {path.absolute().parent} does not exist")


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draws the results of one call of `lcpu bench`: all tests are with drafts, or none is."""
    figure = _bars(rows) if rows[0].result.case.acceptance is None else _speed_ups(rows)
    figure.suptitle(f"lcpu bench: {rows[0].run.cpu}, {rows[0].run.isa}")
    figure.savefig(path)


# ---- bars ----


def _bars(rows: Sequence[Row]) -> Any:
    """One panel for each kind of test: a group of bars for each test, a colour for each model and its settings."""
    from matplotlib.figure import Figure

    panels = {kind: found for kind in _KINDS if (found := [row for row in rows if _kind(row) == kind])}
    series = list(dict.fromkeys(_series(row, rows) for row in rows))
    widths = [max(3.0, len(_tests(found)) * max(1.2, 0.4 * len(series))) for found in panels.values()]
    figure = Figure(figsize=(1 + sum(widths), 4.8), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, (kind, found) in zip(all_axes, panels.items(), strict=True):
        _draw_panel(axes, found, rows, series)
        axes.set(title=_KINDS[kind], xlabel="test", ylabel="tokens per second")
    handles, labels = _legend(all_axes)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False)
    return figure


def _draw_panel(axes: Any, found: Sequence[Row], rows: Sequence[Row], series: Sequence[str]) -> None:
    tests = _tests(found)
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        mine = [row for row in found if _series(row, rows) == name]
        places = [tests.index(row.result.case.name) + (number - (len(series) - 1) / 2) * width for row in mine]
        axes.bar(places, [row.result.avg_ts for row in mine], width, yerr=[row.result.stddev_ts for row in mine],
                 label=name, color=f"C{number % 10}", capsize=3)  # fmt: skip
    axes.set_xticks(range(len(tests)), tests)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _legend(all_axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """The legend, with each label once. A panel has only those series that have a test in it."""
    found: dict[str, Any] = {}
    for axes in all_axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    return list(found.values()), list(found)


def _tests(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.result.case.name for row in rows))


def _kind(row: Row) -> str:
    case = row.result.case
    if case.prompt:
        return "both" if case.generated else "prefill"
    return "step" if case.step else "decode"


def _series(row: Row, rows: Sequence[Row]) -> str:
    """The model and the settings. Batch sizes only if they differ; the file only if two models look the same."""
    run = row.run
    files = {other.run.filename for other in rows if other.run.description == run.description}
    name = run.description if len(files) == 1 else f"{run.description} ({Path(run.filename).name})"
    batches = len({(other.n_batch, other.n_ubatch) for other in rows}) > 1
    return f"{name}, {counted(run.threads)}" + (f", batch {row.n_batch}/{row.n_ubatch}" if batches else "")


# ---- lines ----


def _speed_ups(rows: Sequence[Row]) -> Any:
    """One panel for each model and its settings: the speed-up by the length of drafts, a line for each acceptance.

    Where the engine chose the length at each step, its speed-up is a dashed line across, in the same colour.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(_panel(row, rows) for row in rows))
    rates = sorted({_rate(row) for row in rows}, reverse=True)  # as the lines lie
    drafts = {row.result.case.draft for row in rows}
    colors = [colormaps["viridis"](0.9 * number / max(len(rates) - 1, 1)) for number in range(len(rates))]
    figure = Figure(figsize=(1 + 5.5 * len(panels), 5), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.axhline(1, color="0.6", linewidth=0.8)
        for rate, color in zip(rates, colors, strict=True):
            mine = [row.result for row in rows if _panel(row, rows) == panel and _rate(row) == rate]
            _draw_rate(axes, mine, f"{100 * rate:g}% right", color)
        axes.set(title=panel, xlabel="drafted tokens a step", xticks=range(1, max(drafts) + 1),
                 xlim=(0.5, max(drafts | {1}) + 0.5))
        axes.grid(alpha=0.3)
    all_axes[0].set(ylabel="speed-up over plain decoding", ylim=(0, None))  # of all, once everything is drawn
    if 0 in drafts:
        all_axes[-1].plot([], [], "--", color="0.4", label="chosen by lcpu")
    handles, labels = _legend(all_axes)
    figure.legend(handles, labels, loc="outside lower center", ncols=4 * len(panels), frameon=False)
    return figure


def _draw_rate(axes: Any, results: Sequence[Result], label: str, color: Any) -> None:
    fixed = sorted((result.case.draft, result.speed_up) for result in results if result.case.draft)
    axes.plot([draft for draft, _ in fixed], [speed_up for _, speed_up in fixed], ".-", label=label, color=color)
    for result in results:
        if not result.case.draft:
            axes.axhline(result.speed_up, color=color, linestyle="--", linewidth=1)


def _rate(row: Row) -> float:
    return row.result.case.acceptance or 0.0


def _panel(row: Row, rows: Sequence[Row]) -> str:
    """The model and the settings, and the number of generated tokens if it differs."""
    counts = {other.result.case.generated for other in rows}
    return _series(row, rows) + (f", tg{row.result.case.generated}" if len(counts) > 1 else "")
