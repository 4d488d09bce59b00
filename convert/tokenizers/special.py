"""What a checkpoint says of its tokens: which are special, what goes around a text, how a conversation is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...engine.tokenizer.special import END_TEXTS
from ...kernels.errors import LcpuError
from ..json_file import Config, read_json_if_there
from .template import tokens_around
from .vocabulary import Vocabulary

# Names in Hugging Face's files -> in GGUF's keys.
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def special_metadata(
    folder: Path, config: Config, vocabulary: Vocabulary
) -> tuple[dict[str, object], list[str]]:
    """Keys under "tokenizer." for a vocabulary that has its final size, and notes for the user."""
    settings = read_json_if_there(folder / "special_tokens_map.json")
    settings |= read_json_if_there(folder / "tokenizer_config.json")
    generation = read_json_if_there(folder / "generation_config.json")
    around = tokens_around(folder)
    ids = vocabulary.ids()
    named = {}
    for name in _NAMED:
        text = _text(settings.get(f"{name}_token"))
        token = None if text is None else ids.get(text)
        listed = _ids(config.get(f"{name}_token_id")) or _ids(generation.get(f"{name}_token_id"))
        candidates = [token, around.get(name), *listed]
        found = next((other for other in candidates if other in vocabulary.tokens), None)
        if found is not None:
            named[name] = found
    keys: dict[str, object] = {f"ggml.{_NAMED[name]}_token_id": token for name, token in named.items()}
    # transformers puts BOS before the texts of a Llama whose files do not say.
    is_llama = str(settings.get("tokenizer_class")).startswith("LlamaTokenizer")
    is_llama |= not (folder / "tokenizer.json").exists()
    for name, default in (("bos", vocabulary.model == "llama" and is_llama and not around), ("eos", False)):
        says = settings.get(f"add_{name}_token")
        adds = says if isinstance(says, bool) else name in around or default
        keys[f"ggml.add_{name}_token"] = adds and name in named
        if adds and around.get(name, named.get(name)) != named.get(name):
            raise LcpuError(f"{folder}: tokenizer.json puts token {around[name]} around a text, but {name}_token is "
                            f"token {named.get(name)}: make them agree")
    ends = _ids(generation.get("eos_token_id")) + _ids(config.get("eos_token_id"))
    more, notes = _other_ends(ends, named.get("eos"), vocabulary)
    keys |= more | _chat_templates(folder, settings)
    return {f"tokenizer.{key}": value for key, value in keys.items()}, notes


def _text(value: Any) -> str | None:
    """A token in a configuration file: its text, or an object with it."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _ids(value: Any) -> list[int]:
    """A token id, or several."""
    return [token for token in (value if isinstance(value, list) else [value]) if type(token) is int]


def _other_ends(ends: list[int], eos: int | None, vocabulary: Vocabulary) -> tuple[dict[str, object], list[str]]:
    """Further tokens that end an answer, and notes.

    GGUF has keys for two; most are known by their text and need none. Where there are more, lcpu reads a list of all.
    """
    all_ends = [token for token in dict.fromkeys([eos, *ends]) if token in vocabulary.tokens]
    others = [token for token in all_ends if token != eos and vocabulary.tokens[token] not in END_TEXTS]
    keys: dict[str, object] = {f"ggml.{name}_token_id": token
                               for name, token in zip(("eot", "eom"), others, strict=False)}
    if len(others) <= 2:
        return keys, []
    unknown = ", ".join(repr(vocabulary.tokens[token]) for token in others[2:7])
    note = (f"{len(all_ends)} tokens end a text: tokenizer.ggml.eos_token_ids lists them; a program that does not read "
            f"this key goes on after {unknown}")
    return keys | {"ggml.eos_token_ids": np.array(all_ends, np.int32)}, [note]


def _chat_templates(folder: Path, settings: dict[str, Any]) -> dict[str, object]:
    """The chat template, from the place where transformers looks first, and others by their names."""
    try:
        templates: Any = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        in_file = read_json_if_there(folder / "chat_template.json").get("chat_template")
        templates = settings.get("chat_template") or in_file or []
    except (OSError, UnicodeDecodeError) as error:
        raise LcpuError(f"{folder / 'chat_template.jinja'}: cannot be read: {error}") from None
    if isinstance(templates, str):
        return {"chat_template": templates}
    by_name = {entry["name"]: entry["template"] for entry in templates
               if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("name", "template"))}
    keys: dict[str, object] = {"chat_template": by_name.pop("default")} if "default" in by_name else {}
    keys |= {f"chat_template.{name}": template for name, template in by_name.items()}
    return keys | ({"chat_templates": list(by_name)} if by_name else {})
