"""What a checkpoint says of its tokens: which are special, what goes around a text, how a conversation is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.tokenizer.special import END_TEXTS
from ...kernels.errors import LcpuError
from ..json_file import Config, read_json_if_there
from .vocabulary import Vocabulary

# Names in Hugging Face's files -> in GGUF's keys.
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def special_metadata(folder: Path, config: Config, vocabulary: Vocabulary) -> dict[str, object]:
    """Keys under "tokenizer." for a vocabulary that has its final size."""
    settings = read_json_if_there(folder / "special_tokens_map.json")
    settings |= read_json_if_there(folder / "tokenizer_config.json")
    generation = read_json_if_there(folder / "generation_config.json")
    template = _post_processor(folder)
    ids = vocabulary.ids()
    named = {}
    for name in _NAMED:
        text = _text(settings.get(f"{name}_token")) or template.get(name)
        listed = _ids(config.get(f"{name}_token_id")) or _ids(generation.get(f"{name}_token_id"))
        token = ids.get(text) if text is not None else None
        token = next((other for other in listed if other in vocabulary.tokens), None) if token is None else token
        if token is not None:
            named[name] = token
    keys: dict[str, object] = {f"ggml.{_NAMED[name]}_token_id": token for name, token in named.items()}
    ends = _ids(generation.get("eos_token_id")) + _ids(config.get("eos_token_id"))
    keys |= _other_ends(ends, named.get("eos"), vocabulary)
    for name, default in (("bos", vocabulary.model == "llama" and not template), ("eos", False)):
        adds = settings.get(f"add_{name}_token")
        adds = adds if isinstance(adds, bool) else name in template or default
        keys[f"ggml.add_{name}_token"] = adds and name in named
    keys |= _chat_templates(folder, settings)
    return {f"tokenizer.{key}": value for key, value in keys.items()}


def _text(value: Any) -> str | None:
    """A token in a configuration file: its text, or an object with it."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _ids(value: Any) -> list[int]:
    """A token id, or several."""
    return [token for token in (value if isinstance(value, list) else [value]) if type(token) is int]


def _other_ends(ends: list[int], eos: int | None, vocabulary: Vocabulary) -> dict[str, object]:
    """Further tokens that end an answer. GGUF has keys for two; most are known by their text and need none."""
    others = [token for token in dict.fromkeys(ends)
              if token != eos and token in vocabulary.tokens and vocabulary.tokens[token] not in END_TEXTS]
    return {f"ggml.{name}_token_id": token for name, token in zip(("eot", "eom"), others, strict=False)}


def _post_processor(folder: Path) -> dict[str, str]:
    """What tokenizer.json puts around a text: the tokens' texts, by "bos" and "eos"; empty if it says nothing."""
    definition = read_json_if_there(folder / "tokenizer.json").get("post_processor") or {}
    found: dict[str, str] = {}
    for step in definition.get("processors", [definition]):
        if step.get("type") != "TemplateProcessing":
            continue
        single = step.get("single") or [{}]
        for name, piece in (("bos", single[0]), ("eos", single[-1])):
            if text := _text((piece.get("SpecialToken") or {}).get("id")):
                found[name] = text
    return found


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
