"""--prompt-cache: what a run computes of its prompt is kept in a file for later runs, by llama.cpp's rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..kernels.errors import LcpuError
from . import console
from .options import UsageError

if TYPE_CHECKING:
    from .protocols import LLM, Generation


@dataclass
class PromptCache:
    """A file with the beginning of a text. Without a path, there is none, and nothing is done."""

    path: Path | None
    whole: bool = False  # keep the generated text too
    read_only: bool = False
    held: list[int] = field(default_factory=list)  # ids in the file

    def check(self) -> None:
        """Raises UsageError for flags that make no sense, LcpuError for a file that could not be written."""
        if self.path is None and (self.whole or self.read_only):
            flag = "--prompt-cache-all" if self.whole else "--prompt-cache-ro"
            raise UsageError(f"{flag} needs a file: add --prompt-cache FILE")
        if self.whole and self.read_only:
            raise UsageError("--prompt-cache-ro writes nothing, not even what --prompt-cache-all asks for: "
                             "leave out one of them")
        if self.path is not None and not self.read_only:
            from ..engine.prompt_cache import check_writable

            check_writable(self.path)

    def restore(self, llm: LLM) -> None:
        """Let the model know what the file has. Raises LcpuError if it cannot be used."""
        if self.path is not None:
            self.held = llm.restore_prompt(self.path)
            if self.read_only and not self.held:
                console.notice(f"warning: {self.path}: there is no prompt cache yet; without --prompt-cache-ro, this "
                               "run would make one")

    def saving(self, llm: LLM, ids: list[int], generation: Generation) -> Iterator[str]:
        """The text. Once its first piece is there the prompt `ids` is saved, and all of the text at its end."""
        saved = False
        for piece in generation:
            yield piece
            if not saved:
                self._save(llm, ids)
                saved = True
        self._save(llm, [*ids, *generation.generated_ids] if self.whole else ids)

    def _save(self, llm: LLM, ids: list[int]) -> None:
        """Unless the file has it already. A text does not end because its beginning cannot be saved."""
        if self.path is None or self.read_only or self.held[: len(ids)] == ids:
            return
        try:
            self.held = ids[: llm.save_prompt(self.path, ids)]
        except LcpuError as error:
            console.notice(f"warning: {error}")
            self.path = None
