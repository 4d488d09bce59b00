"""`lcpu batch` with drafts: the same answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .batches import LINES, Batch, answers_in, said, written

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize(("flags", "drafts"), [
    ("-md {model}", "from n-grams and llama 36.9K F32"), ("-md {model} -np 1", "from n-grams and llama 36.9K F32"),
    ("-md {model} --resume", "from n-grams and llama 36.9K F32"), ("--spec ngram", "from n-grams"),
    ("--spec none", "none")])  # fmt: skip
def test_drafts_change_nothing(batch: Batch, tiny_gguf: Path, always_draft: None, flags: str, drafts: str) -> None:
    """The model drafts for itself, whether it pays or not."""
    Path("in.jsonl").write_text(written(LINES))
    _, expected, err = batch(None, "-f in.jsonl -s 1 --spec none")
    Path("out.jsonl").write_text(written(expected[:2]) if "--resume" in flags else "")
    code, _, err = batch(None, f"-f in.jsonl -o out.jsonl -s 1 -v {flags.format(model=tiny_gguf)}")
    assert (code, said(answers_in("out.jsonl"))) == (0, said(expected))
    assert re.search(rf"^drafts  +{drafts}$", err, re.MULTILINE)
    accepted = re.search(r" tok/s · \d+ of \d+ drafted tokens accepted \(\d+%\), \d\.\d a draft\n$", err)
    assert (accepted is None) == (drafts == "none")
