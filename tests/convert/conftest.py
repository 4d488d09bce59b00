"""What the tests of conversion share: a checkpoint in, a GGUF file out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcpu.convert.checkpoint import open_checkpoint
from lcpu.convert.plan import plan
from lcpu.convert.type_rules import Overrides
from lcpu.convert.write import write_plan
from lcpu.engine.gguf_file import GGUFFile

from .checkpoints import write_checkpoint

Tensors = dict[str, np.ndarray]


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., GGUFFile]:
    """convert(tensors, type=..., ...) -> the file that a checkpoint becomes; other keywords are write_checkpoint's."""

    def run(tensors: Tensors | None = None, type: str = "auto", name: str = "Tiny", overrides: Overrides | None = None,
            **how: Any) -> GGUFFile:
        shutil.rmtree(tmp_path / "Tiny", ignore_errors=True)
        with open_checkpoint(write_checkpoint(tmp_path / "Tiny", tensors, **how)) as checkpoint:
            write_plan(plan(checkpoint, type, name, overrides), tmp_path / "a.gguf")
        return GGUFFile.open(tmp_path / "a.gguf")

    return run
