"""--prompt-cache: what a run computes of its prompt is kept in a file for later runs, by llama.cpp's rules.

A batch keeps the beginning that all of its prompts have in common.
"""

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

_LEAST = 16  # tokens in common that are worth a file


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
                self.save(llm, ids)
                saved = True
        self.save(llm, [*ids, *generation.generated_ids] if self.whole else ids)

    def save(self, llm: LLM, ids: list[int]) -> bool:
        """Write what is computed of `ids`, unless the file has it already. A text does not end because its beginning
        cannot be saved. Returns whether something was written."""
        if self.path is None or self.read_only or self.held[: len(ids)] == ids:
            return False
        try:
            saved = llm.save_prompt(self.path, ids)
        except LcpuError as error:
            console.notice(f"warning: {error}")
            self.path = None
            return False
        self.held = ids[:saved] if saved else self.held
        return saved > 0


@dataclass
class CommonPrompt:
    """What the prompts of a batch have in common at their beginning, which is what their cache is to hold."""

    cache: PromptCache
    ids: list[int] = field(default_factory=list)
    prompts: int = 0
    written: list[int] | None = None  # ids that the file was last written for

    def add(self, ids: list[int]) -> None:
        """A prompt that is going to be computed."""
        from ..engine.page_cache import common_prefix

        self.ids = self.ids[: common_prefix(self.ids, ids)] if self.prompts else ids
        self.prompts += 1

    def save(self, llm: LLM, *, at_end: bool = False) -> None:
        """To be called after each answer, so that a run that is interrupted leaves a file, too, and at the end.

        The first prompt alone says nothing about what is common, unless no other comes. What this run has written is
        written again when further prompts have less in common; a file from before may hold more.
        """
        if self.cache.path is None or self.cache.read_only or not self.prompts or self.ids == self.written:
            return
        if self.prompts > 1 and len(self.ids) < _LEAST:
            if at_end and self.written is None:
                console.notice(f"warning: {self.cache.path} is not written: the prompts have only {len(self.ids)} "
                               f"token{'' if len(self.ids) == 1 else 's'} in common")
        elif self.prompts > 1 or at_end:
            if self.written is not None:
                self.cache.held = []
            if self.cache.save(llm, self.ids):
                self.written = self.ids
