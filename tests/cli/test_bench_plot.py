"""The figure of `lcpu bench --plot`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from lcpu.cli import bench_plot
from lcpu.cli.bench_report import Row, Run
from lcpu.cli.main import exit_code
from lcpu.engine.benchmark import Result
from lcpu.engine.benchmark_speculation import speculative
from lcpu.kernels.probe import Peaks


def test_a_figure_without_matplotlib(models, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert exit_code(["bench", "--plot", str(tmp_path / "x.svg")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lcpu: error: --plot needs matplotlib, which is not installed: pip install")
    assert err.count("\n") == 1
    assert models == []


@pytest.mark.parametrize(("name", "message"), [
    ("x.txt", "must end in one of"),
    ("x", "must end in one of"),
    ("nowhere/x.svg", "does not exist"),
])
def test_a_figure_that_could_not_be_saved(models, capsys, tmp_path, name, message):
    pytest.importorskip("matplotlib")
    assert exit_code(["bench", "--plot", str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert models == []


def test_a_figure(models, capsys, monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # texts as such, not as outlines
    path = tmp_path / "x.svg"
    arguments = "-p 4,8 -n 2 -pg 4,2 -tgb 2 -d 0,16 -t 1,2 -r 2"
    assert exit_code(["bench", *arguments.split(), "--plot", str(path)]) == 0
    svg = path.read_text()
    for text in ("Prefill", "Decode", "tokens per second", "pp8 @ d16", "pp4+tg2", "tgB2", "F16, 1 thread",
                 "F16, 2 threads"):
        assert f"{text}<" in svg, text
    assert len(re.findall("^[|]", capsys.readouterr().out, re.MULTILINE)) == 2 + 20


# ---- drafts ----


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch):
    """figure(rows) -> what `draw` would save."""
    module = pytest.importorskip("matplotlib.figure")
    saved: list = []
    monkeypatch.setattr(module.Figure, "savefig", lambda self, path: saved.append(self))

    def draw(rows: list[Row]):
        bench_plot.draw(Path("x.svg"), rows)
        return saved.pop()

    return draw


def speed_up(threads: int, draft: int, rate: float) -> float:
    """Some number, another one for each."""
    return 1 + threads + 0.1 * draft * rate


def row(threads: int, draft: int, rate: float, generated: int = 32) -> Row:
    peaks = Peaks(threads, 1e9, 1e9, 1e9, 1e9)
    run = Run("x.gguf", "llama 1.1B Q4_0", 1, 1, "A Processor", "avx2", threads, 0.5, peaks)
    result = Result(speculative(generated, draft, rate), (1,), speed_up=speed_up(threads, draft, rate))
    return Row(run, result, 2048, 512, "2026-01-02")


def test_drafts_are_lines_by_acceptance(figure):
    drafts = [0, 4, 1, 2]
    found = figure([row(threads, draft, rate) for threads in (1, 2) for draft in drafts for rate in (0.5, 1)])
    assert found.get_suptitle() == "lcpu bench: A Processor, avx2"
    assert [text.get_text() for text in found.legends[0].get_texts()] == ["100% right", "50% right", "chosen by lcpu"]
    assert [axes.get_title() for axes in found.axes] == ["llama 1.1B Q4_0, 1 thread", "llama 1.1B Q4_0, 2 threads"]
    for threads, axes in enumerate(found.axes, 1):
        plain, *lines = axes.get_lines()
        assert list(plain.get_ydata()) == [1, 1]
        assert len({line.get_color() for line in lines[:4]}) == 2
        for rate, solid, dashed in ((1, *lines[:2]), (0.5, *lines[2:4])):
            assert list(solid.get_xdata()) == [1, 2, 4]
            assert list(solid.get_ydata()) == [speed_up(threads, draft, rate) for draft in (1, 2, 4)]
            assert list(dashed.get_ydata()) == [speed_up(threads, 0, rate)] * 2
            assert (dashed.get_linestyle(), dashed.get_color()) == ("--", solid.get_color())
        low, high = axes.get_ylim()
        assert low == 0
        assert high > speed_up(2, 4, 1), "panels have one scale, which all of them fit"


def test_without_a_choice_of_the_engine_s_nothing_is_dashed(figure):
    (axes,) = figure([row(1, draft, 0.8) for draft in (1, 2)]).axes
    assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "-"]


@pytest.mark.filterwarnings("error")
def test_with_nothing_else_there_are_no_lengths(figure):
    (axes,) = figure([row(1, 0, 0.8)]).axes
    assert list(axes.get_xticks()) == []


def test_a_panel_for_each_number_of_tokens(figure):
    found = figure([row(1, 1, 0.8, generated) for generated in (16, 32)])
    assert [axes.get_title() for axes in found.axes] == [
        f"llama 1.1B Q4_0, 1 thread, tg{generated}" for generated in (16, 32)]  # fmt: skip


def test_a_figure_of_drafts(models, monkeypatch, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
    path = tmp_path / "x.svg"
    arguments = "--spec -n 4 -r 1 --draft-n 0-3 --acceptance 0.5,1 -t 1,2"
    assert exit_code(["bench", *arguments.split(), "--plot", str(path)]) == 0
    svg = path.read_text()
    for text in ("drafted tokens a step", "speed-up over plain decoding", "50% right", "100% right", "chosen by lcpu",
                 "F16, 1 thread", "F16, 2 threads"):
        assert f"{text}<" in svg, text
    assert "tokens per second" not in svg
