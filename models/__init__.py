"""The embedded models, and a text to measure others with.

The folder `recipe`, which is not in the wheel, made the models; lcpu never imports it.
"""

from __future__ import annotations

from pathlib import Path

from ..kernels.errors import LcpuError

NAMES = ("stories", "stories-draft", "stories-ternary")


def path(name: str = "stories") -> Path:
    """The GGUF file of an embedded model. Raises LcpuError for a name that is not embedded."""
    if name not in NAMES:
        raise LcpuError(f"no embedded model is named {name!r}: choose one of {', '.join(NAMES)}")
    return Path(__file__).parent / f"{name}.gguf"


def calibration_text() -> Path:
    """A text of many kinds, for importance matrices: prose, dialogue, lists, code, data, mathematics, languages."""
    return Path(__file__).parent / "calibration.txt"
