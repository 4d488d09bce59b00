"""Quantized weights as checkpoints pack them, in plain NumPy."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lcpu.convert.source import SourceTensor


def source_of(name: str, array: np.ndarray, dtype: str) -> SourceTensor:
    """A tensor as if it lay in a file."""
    data = np.ascontiguousarray(array)
    file: Any = SimpleNamespace(buffer=data.tobytes(), path=Path("model.safetensors"), release=lambda *where: None)
    return SourceTensor(name, data.shape, dtype, file, 0)
