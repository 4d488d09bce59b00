"""What `lcpu run` reports: the line of speeds, the JSON document, the description of -v."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from ..engine.gguf_metadata import Value
    from ..engine.llm import DraftSource
    from ..engine.speculation import Figures
    from .protocols import LLM, Generation


HEAVY_OUTPUT = 0.4  # of the bytes that are read for a token


@dataclass(frozen=True)
class Timings:
    """Tokens and seconds of one generation, or of all turns of a conversation.

    prompt_tokens: how many were computed. reused_tokens: how many were in the cache from an earlier turn.
    """

    load_seconds: float
    prompt_tokens: int = 0
    reused_tokens: int = 0
    prompt_seconds: float = 0.0
    generated_tokens: int = 0
    generation_seconds: float = 0.0
    speculation: Figures | None = None

    def plus(self, generation: Generation) -> Timings:
        return Timings(
            self.load_seconds,
            self.prompt_tokens + generation.prompt_tokens - generation.reused_tokens,
            self.reused_tokens + generation.reused_tokens,
            self.prompt_seconds + generation.prompt_seconds,
            self.generated_tokens + len(generation.generated_ids),
            self.generation_seconds + generation.generation_seconds,
            self.speculation.plus(generation.speculation) if self.speculation else generation.speculation,
        )

    def line(self) -> str:
        """For example: load 0.42 s · prompt 5 tokens, 210.3 tok/s · generation 120 tokens, 95.2 tok/s"""
        prompt = f"prompt {self.prompt_tokens} tokens{speed(self.prompt_tokens, self.prompt_seconds)}"
        if self.reused_tokens:
            prompt += f" ({self.reused_tokens} reused)"
        generation = f"generation {self.generated_tokens} tokens{speed(self.generated_tokens, self.generation_seconds)}"
        return f"load {self.load_seconds:.2f} s · {prompt} · {generation}{drafts(self.speculation)}"


def speed(tokens: int, seconds: float) -> str:
    return f", {tokens / seconds:.1f} tok/s" if tokens and seconds > 0 else ""


def drafts(figures: Figures | None) -> str:
    """For example: · 60 of 80 drafted tokens accepted (75%), 2.4 a draft, 1.62 times as fast"""
    return f"{accepted(figures)}, {figures.speed_up:.2f} times as fast" if figures and figures.drafts else ""


def accepted(figures: Figures | None) -> str:
    """The same without the speed-up, which is not known of texts that share their steps."""
    if figures is None or not figures.drafts:
        return ""
    return (f" · {figures.accepted} of {figures.drafted} drafted tokens accepted ({figures.acceptance_rate:.0%}), "
            f"{figures.mean_accepted:.1f} a draft")


def document(llm: LLM, path: Path | None, prompt: str, seed: int, text: str, generation: Generation) -> str:
    """The JSON document of --json, on one line."""
    timings, figures = asdict(Timings(llm.load_seconds).plus(generation)), generation.speculation
    content = {
        "prompt": prompt,
        "text": text,
        "ids": [int(token) for token in generation.generated_ids],
        "finish_reason": generation.finish_reason,
        "model": llm.description,
        "path": None if path is None else str(path),  # null: the embedded model
        "isa": llm.isa.name,
        "threads": llm.threads,
        "context": llm.context,
        "seed": seed,
        "timings": {name: value for name, value in timings.items() if name != "speculation"},
        "speculation": {
            "drafted": figures.drafted,
            "accepted": figures.accepted,
            "acceptance_rate": figures.acceptance_rate,
            "mean_accepted": figures.mean_accepted,
            "speed_up": figures.speed_up,
        },
    }
    return json.dumps(content, ensure_ascii=False)


def introduce(llm: LLM, path: Path | None, draft: DraftSource, threads: int | None,
              context: int | None, seed: int, output_type: str | None, *, verbose: bool) -> None:
    """Writes hints to stderr before the text; with `verbose`, also a description of what runs."""
    if verbose:
        describe(llm, path, draft, threads, context, seed)
    if output_type is None:
        suggest_output_type(llm)
    if llm.context > llm.trained_context:
        console.notice(f"the model was trained for {llm.trained_context} tokens: past them, text may degrade")


def describe(llm: LLM, path: Path | None, draft: DraftSource, threads: int | None,
             context: int | None, seed: int) -> None:
    """Writes to stderr which model runs, with which settings, and where these come from."""
    cores = "physical cores within this process's quota, fewer for a small model"
    asked = "as asked" if threads == llm.threads else f"{threads} asked, but there are no more processors"
    threads_reason = asked if threads and threads > 0 else cores
    context_reason = "as asked" if context else "the model's own, at most 32768 and what fits in memory"
    rows: list[tuple[str, Any]] = [
        ("model", f"{llm.description} ({path or 'embedded'})"),
        *hyperparameters(llm),
        ("simd path", f"{llm.isa.name} ({llm.isa.reason})"),
        ("threads", f"{llm.threads} ({threads_reason})"),
        ("context", f"{llm.context} tokens ({context_reason})"),
        ("cache", "{} tokens (keys {}, values {})".format(llm.cache_tokens, *map(str.upper, llm.cache_types))),
        ("drafts", "none" if draft is None else "from n-grams" if draft == "ngram" else
         f"from n-grams and {draft.description}"),
        ("seed", seed),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.notice(f"{name:{width}}  {value}")


def suggest_output_type(llm: LLM) -> None:
    """Writes a hint to stderr if a float output layer takes much of the time of each token, as in BitNet's files."""
    name, share = llm.output_layer
    if share > HEAVY_OUTPUT and name in ("f32", "f16", "bf16"):
        console.notice(f"the output layer is {name.upper()}, {share:.0%} of what each token reads: "
                       "--output-type q8_0 makes generation faster")


def hyperparameters(llm: LLM) -> list[tuple[str, str]]:
    """The metadata under the architecture's own prefix, such as ("llama.block_count", 22)."""
    prefix = f"{llm.metadata['general.architecture']}."
    names = sorted(name for name in llm.metadata if name.startswith(prefix))
    return [(name, shown(llm.metadata[name])) for name in names]


def shown(value: Value) -> str:
    if isinstance(value, str | bool | int):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else f"{len(value)} values"
