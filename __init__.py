"""lcpu: an LLM engine for CPUs.

    from lcpu import LLM

    with LLM.load("model.gguf") as llm:
        for piece in llm.generate("Once upon a time"):
            print(piece, end="", flush=True)

`import lcpu` itself is light: the engine and Numba are imported at the first use of `LLM`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .kernels.errors import LcpuError

if TYPE_CHECKING:
    from pathlib import Path

    from .engine.gguf_file import GGUFFile
    from .engine.llm import LLM
    from .engine.opening import open_model as open_model
else:

    def __getattr__(name: str):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .engine import opening

        opening.open_checkpoint = _open_checkpoint
        return getattr(import_module(_MODULES[name], __name__), name)


_MODULES = {"LLM": ".engine.llm", "open_model": ".engine.opening"}


def _open_checkpoint(folder: Path, type: str | None, threads: int | None) -> GGUFFile:
    """Here `engine` and `convert` meet: neither knows that `LLM.load` takes the folder of a checkpoint."""
    from .convert.in_memory import open_converted

    return open_converted(folder, type, threads)



__version__ = "0.1.0"
__all__ = ["LLM", "LcpuError", "__version__"]
