"""lcpu: an LLM engine for CPUs.

    from lcpu import LLM

    with LLM.load("model.gguf") as llm:
        for piece in llm.generate("Once upon a time"):
            print(piece, end="", flush=True)

`import lcpu` itself is light: the engine and Numba are imported at the first use of `LLM`.
"""

from typing import TYPE_CHECKING

from .kernels.errors import LcpuError

if TYPE_CHECKING:
    from .engine.llm import LLM
else:

    def __getattr__(name: str):
        if name == "LLM":
            from .engine.llm import LLM

            return LLM
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"
__all__ = ["LLM", "LcpuError", "__version__"]
