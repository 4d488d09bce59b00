"""What the command uses of the engine's classes, under their names.

mypy checks the engine's own classes against these, wherever the command passes one on. The tests check their scripted
engine against them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..engine.generate import GenerationOptions
    from ..engine.gguf_metadata import Value
    from ..engine.llm import DraftSource
    from ..engine.speculation import Figures
    from ..kernels.isa import Isa


class Tokenizer(Protocol):
    bos_id: int | None
    eos_id: int | None
    add_bos: bool

    def token_bytes(self, token: int, skip_special: bool = True) -> bytes: ...


class Generation(Protocol):
    """Iterate over it for the text; then the attributes have their last values."""

    generated_ids: list[int]
    finish_reason: str | None

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def reused_tokens(self) -> int: ...

    @property
    def prompt_seconds(self) -> float: ...

    @property
    def generation_seconds(self) -> float: ...

    @property
    def speculation(self) -> Figures: ...

    def __iter__(self) -> Iterator[str]: ...


class LLM(Protocol):
    context: int
    threads: int
    load_seconds: float
    description: str
    metadata: Mapping[str, Value]
    isa: Isa

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def trained_context(self) -> int: ...

    @property
    def cache_types(self) -> tuple[str, str]: ...

    @property
    def cache_tokens(self) -> int: ...

    @property
    def output_layer(self) -> tuple[str, float]: ...

    @property
    def chat_template(self) -> str | None: ...

    def tokenize(self, text: str, add_bos: bool = True, parse_special: bool = False) -> list[int]: ...

    def stream(self, ids: Sequence[int], options: GenerationOptions | None = None,
               draft: DraftSource = "ngram") -> Generation: ...

    def shifted(self, ids: Sequence[int], options: GenerationOptions) -> list[int]: ...

    def save_prompt(self, path: str | os.PathLike[str], ids: Sequence[int]) -> int: ...

    def restore_prompt(self, path: str | os.PathLike[str]) -> list[int]: ...

    def __enter__(self) -> LLM: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...
