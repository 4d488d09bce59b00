"""A scripted stand-in for the engine, so that the command is tested without a model.

`python fake_engine.py run ...` is `lcpu run ...` on it. A prompt with "forever" is answered without end, one
with "silence" after a minute, and the others with a short text. A token is a byte, and its beginning-of-text token is
256.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, Literal

from lcpu.engine.options import GenerationOptions
from lcpu.engine.speculation import Figures

BOS = 256
TEXT = [" there", " was", " a", " caf", "é", "."]


class Generation:
    def __init__(self, pieces: Iterator[str], prompt: list[int], speculation: Figures):
        self.pieces = pieces
        self.speculation = speculation
        self.prompt_tokens, self.reused_tokens = len(prompt), 0
        self.prompt_seconds = self.generation_seconds = 0.5
        self.generated_ids: list[int] = []
        self.finish_reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            self.generated_ids.append(len(self.generated_ids))
            yield piece
        self.finish_reason = "stop"


class Tokenizer:
    bos_id, eos_id, add_bos = BOS, None, True

    def token_bytes(self, token: int, skip_special: bool = True) -> bytes:
        return b"" if skip_special else b"<s>"


class LLM:
    """Follows `lcpu.cli.protocols.LLM`: test_fake_engine.py checks it. `loads` and `streams` record the calls."""

    context = 120
    trained_context = 4096
    cache_tokens = 8192
    cache_types = ("f16", "f16")  # as last asked for
    output_layer = ("q8_0", 0.1)
    threads = 2
    load_seconds = 0.25
    description = "fake 1K F32"
    chat_template: str | None = "a template"
    tokenizer = Tokenizer()
    isa = SimpleNamespace(name="generic", reason="a test")
    stages: tuple[tuple[str, int, int], ...] = ()
    knows_chatml = False
    loads: tuple[dict[str, object], ...] = ()
    memory_checks: tuple[bool, ...] = ()
    loaded: tuple[LLM, ...] = ()
    closed: tuple[LLM, ...] = ()
    streams: tuple[tuple[list[int], GenerationOptions, LLM | Literal["ngram"] | None], ...] = ()
    speculation = Figures()  # of every generation
    error: BaseException | None = None
    files: Mapping[str, list[int]] = MappingProxyType({})  # prompt caches, by name
    file_error: Exception | None = None  # of writing one

    def __init__(self) -> None:
        self.metadata = {
            "general.architecture": "fake",
            "fake.block_count": 3,
            "fake.layers": [1, 2],
        }

    @classmethod
    def load(cls, path=None, *, type=None, threads=None, context=None, output_type=None, beside=None, parallel=16,
             cache_tokens=None, cache_types=("f16", "f16"), check_memory=True, input_squares=False,
             progress=None) -> LLM:
        cls.loads += ({"path": path, "threads": threads, "context": context, "beside": beside},)
        cls.memory_checks += (check_memory,)
        cls.cache_types = cache_types
        if cls.error is not None:
            raise cls.error
        for stage in cls.stages if progress else ():
            progress(*stage)
        cls.loaded += (cls(),)
        return cls.loaded[-1]

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        type(self).closed += (self,)

    def tokenize(self, text: str, add_bos: bool = True, parse_special: bool = False) -> list[int]:
        if text == "<|im_start|>" and self.knows_chatml:
            return [0]
        special = text.startswith("<s>") and parse_special
        return [BOS] * (add_bos + special) + list(text.removeprefix("<s>" if special else "").encode())

    def stream(self, ids: list[int], options: GenerationOptions | None = None,
               draft: LLM | Literal["ngram"] | None = "ngram") -> Generation:
        type(self).streams += ((ids, options, draft),)
        prompt = prompt_of(ids)
        turn = prompt.rpartition("user:")[2]
        pieces = forever() if "forever" in turn else silence() if "silence" in turn else iter(TEXT)
        return Generation(pieces, ids, self.speculation)


    def restore_prompt(self, path: Path) -> list[int]:
        return self.files.get(path.name, [])

    def save_prompt(self, path: Path, ids: list[int]) -> int:
        if self.file_error is not None:
            raise self.file_error
        type(self).files = {**self.files, path.name: ids}
        return len(ids)

    def shifted(self, ids: list[int], options: GenerationOptions) -> list[int]:
        return ids[: options.keep] + ids[len(ids) - self.context + options.keep :] if len(ids) > self.context else ids


def prompt_of(ids: list[int]) -> str:
    return bytes(token for token in ids if token != BOS).decode()


def forever() -> Iterator[str]:
    while True:
        yield " on"
        time.sleep(0.01)


def silence() -> Iterator[str]:
    print("the prompt is long", file=sys.stderr, flush=True)
    time.sleep(60)
    yield from TEXT


def render(template: str | None, messages: list[dict[str, str]], *, add_generation_prompt: bool = True,
           bos_token: str = "", eos_token: str = "", tools: Sequence[Mapping[str, Any]] | None = None,
           variables: Mapping[str, Any] | None = None) -> str:
    told = "".join(f"[{name}: {value}]\n" for name, value in sorted((variables or {}).items()))
    return bos_token + told + "".join(f"{message['role']}:{message['content']}\n" for message in messages)


def modules() -> dict[str, ModuleType]:
    """The modules of the engine that the command imports, made of this one."""
    contents = {"llm": {"LLM": LLM}, "generate": {"GenerationOptions": GenerationOptions}, "chat": {"render": render}}
    made = {}
    for name, content in contents.items():
        made[f"lcpu.engine.{name}"] = module = ModuleType(f"lcpu.engine.{name}")
        module.__dict__.update(content)
    return made


if __name__ == "__main__":
    sys.modules.update(modules())
    from lcpu.cli.main import main

    main()
