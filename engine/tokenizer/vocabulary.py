"""What a GGUF file says of its tokenizer (`tokenizer.ggml.*`), checked once and then fixed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from ...kernels.errors import LcpuError
from . import pretokenizers, special

BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))  # of a "llama" vocabulary, by value

_LOG = logging.getLogger("lcpu")
_CHARACTERS = pretokenizers.CHARACTERS
_DAMAGED = "the file is damaged or badly converted; convert or download the model again"


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`, numbered as the GGUF specification and SentencePiece do."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model, and how text becomes tokens.

    `ids` maps the text of a token to its id. `types` is int8 [tokens], read-only, with llama.cpp's corrections made.
    `scores` is float32 [tokens] with the model "llama", and `merges` (left, right) pairs, best first, with others; else
    they are None. `merges_characters`: they are of characters, not of bytes. `strips_after` are the special tokens that
    take the white space after them along.

    `add_space_prefix`: a space goes before a text, and before what follows a special token. `prepend_scheme` changes
    that as the `Metaspace` of Hugging Face's tokenizers does: no text that begins with a space gets another; with
    "first", only the beginning of a text gets one. (lcpu's own key: llama.cpp does not know it.)
    """

    model: str
    pre: str
    tokens: Sequence[str]
    ids: Mapping[str, int]
    types: np.ndarray
    scores: np.ndarray | None
    merges: Sequence[tuple[str, str]] | None
    merges_characters: bool
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    end_ids: frozenset[int]
    add_bos: bool
    add_space_prefix: bool
    prepend_scheme: str | None
    strips_after: frozenset[int]

    def of_type(self, *types: TokenType) -> list[int]:
        """The tokens that have one of these types, in order."""
        return ids_of_type(self.types, *types)


def ids_of_type(types: np.ndarray, *wanted: TokenType) -> list[int]:
    return np.flatnonzero(np.isin(types, wanted)).tolist()


def read(metadata: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary in the metadata of a GGUF file.

    Defaults follow llama.cpp: without a `tokenizer.ggml.pre`, a "gpt2" vocabulary has the pre-tokenizer "default";
    without an `add_bos_token`, BOS goes before a text with "llama" and with the pre-tokenizers that want it, and always
    with "gemma4"; a "llama" vocabulary has BOS 1, EOS 2 and the unknown token 0 unless it says otherwise. (But another
    that does not say has no BOS and no EOS; llama.cpp takes token 11, whatever that is.) What is missing or
    contradicts, but does no harm, is logged as a note; a missing `tokenizer.ggml.pre` as a warning, since other tokens
    may come of it.

    Raises LcpuError for a kind of tokenizer lcpu does not have, and for keys that are missing, of the wrong type, or at
    odds with each other.
    """
    model = _text(metadata, "tokenizer.ggml.model")
    if model not in ("llama", "gpt2", _CHARACTERS):
        raise LcpuError(f'tokenizer.ggml.model = {model!r} is not supported; use a model that has "llama", "gpt2" or '
                        f'"{_CHARACTERS}"')
    is_spm = model == "llama"
    pre = _CHARACTERS if model == _CHARACTERS else _pretokenizer(metadata, is_spm)
    merges_characters = not is_spm and pre == _CHARACTERS
    wants_bos = is_spm or merges_characters or pretokenizers.find(pre).add_bos
    tokens, ids = _tokens(metadata)
    merges = None if is_spm else _merges(metadata)
    stored_types = _stored_types(metadata, len(tokens))
    if is_spm or merges_characters:
        stored_types = _with_byte_tokens(stored_types, ids)
    marked = _marked(ids, stored_types, merges or ())
    types = _corrected(stored_types, marked)
    named = _named_ids(metadata, len(tokens), {"bos": 1, "eos": 2, "unknown": 0} if is_spm else {})
    ends = special.end_ids(marked, {name: token for name, token in named.items() if name not in ("bos", "unknown")})
    ends |= frozenset(_more_ends(metadata, len(tokens)))
    specials = ids_of_type(types, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    return Vocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        ids=ids,
        types=types,
        scores=_scores(metadata, len(tokens)) if is_spm else None,
        merges=merges,
        merges_characters=merges_characters,
        bos_id=named["bos"],
        eos_id=named["eos"],
        unknown_id=named["unknown"],
        end_ids=ends,
        add_bos=(merges_characters and named["bos"] is not None) or _adds_bos(metadata, named["bos"], wants_bos),
        add_space_prefix=_flag(metadata, "tokenizer.ggml.add_space_prefix", is_spm),
        prepend_scheme=_prepend_scheme(metadata),
        strips_after=special.strips_after(ids, specials, _text(metadata, "general.name", "")),
    )


def _value(metadata: Mapping[str, Any], key: str) -> Any:
    if key not in metadata:
        raise LcpuError(f"the model has no {key}: {_DAMAGED}")
    return metadata[key]


def _wrong_type(key: str, value: object, wanted: str) -> LcpuError:
    return LcpuError(f"{key} is {type(value).__name__}, not {wanted}: {_DAMAGED}")


def _text(metadata: Mapping[str, Any], key: str, default: str | None = None) -> str:
    if default is not None and key not in metadata:
        return default
    value = _value(metadata, key)
    if not isinstance(value, str):
        raise _wrong_type(key, value, "a string")
    return value


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, (bool, np.bool_)):
        raise _wrong_type(key, value, "true or false")
    return bool(value)


def _prepend_scheme(metadata: Mapping[str, Any]) -> str | None:
    key = "tokenizer.ggml.prepend_scheme"
    scheme = _text(metadata, key, "") or None
    if scheme not in (None, "first", "always"):
        raise LcpuError(f'{key} = {scheme!r} is not supported; use a model that has "first" or "always" there')
    return scheme


def _strings(metadata: Mapping[str, Any], key: str) -> Sequence[str]:
    value = _value(metadata, key)
    if not isinstance(value, (list, tuple)) or not set(map(type, value)) <= {str}:
        raise _wrong_type(key, value, "a list of strings")
    try:
        "".join(value).encode()
    except UnicodeEncodeError:
        raise LcpuError(f"{key} holds a string that is not UTF-8: {_DAMAGED}") from None
    return value


def _numbers(metadata: Mapping[str, Any], key: str, size: int, kinds: str, wanted: str) -> np.ndarray:
    """An array of `size` numbers, of one of NumPy's `kinds` of dtype."""
    value = np.asarray(_value(metadata, key))
    if value.dtype.kind not in kinds or value.ndim != 1:
        raise _wrong_type(key, metadata[key], wanted)
    if len(value) != size:
        raise LcpuError(f"{key} has {len(value)} entries for {size} tokens: {_DAMAGED}")
    return value


def _tokens(metadata: Mapping[str, Any]) -> tuple[Sequence[str], dict[str, int]]:
    key = "tokenizer.ggml.tokens"
    tokens = _strings(metadata, key)
    if not tokens:
        raise LcpuError(f"{key} is empty: {_DAMAGED}")
    if "" in tokens:  # as llama.cpp names them
        tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        twice = next(token for index, token in enumerate(tokens) if ids[token] != index)
        raise LcpuError(f"{key} holds {twice!r} twice: {_DAMAGED}")
    return tokens, ids


def _pretokenizer(metadata: Mapping[str, Any], is_spm: bool) -> str:
    pre = _text(metadata, "tokenizer.ggml.pre", "")
    if not pre and not is_spm:
        _LOG.warning("the model does not say how its tokenizer cuts text into words (tokenizer.ggml.pre is missing): "
                     "the default rules are used, so tokens may be wrong and answers worse; "
                     "get a newer GGUF file of the model")
    return pre or "default"


def _stored_types(metadata: Mapping[str, Any], size: int) -> np.ndarray:
    key = "tokenizer.ggml.token_type"
    if key not in metadata:
        _LOG.info("the vocabulary has no %s: tokens are taken as ordinary text unless their text tells", key)
        return np.full(size, TokenType.NORMAL, np.int8)
    types = _numbers(metadata, key, size, "iu", "an array of integers")
    unknown = types[~np.isin(types, list(TokenType))]
    if len(unknown):
        raise LcpuError(f"{key} holds {unknown[0]}, which is no token type (0 to 6): {_DAMAGED}")
    return types.astype(np.int8)


def _with_byte_tokens(types: np.ndarray, ids: Mapping[str, int]) -> np.ndarray:
    """The types with BYTE for exactly the tokens `<0x00>` to `<0xFF>`: llama.cpp finds these by their text.

    (Those that are special stay so: they are found in a text, too.)
    """
    tokens = [ids[text] for text in BYTE_TOKENS if text in ids]
    fixed = types.copy()
    fixed[types == TokenType.BYTE] = TokenType.NORMAL
    fixed[tokens] = TokenType.BYTE
    special_bytes = [token for token in tokens if types[token] in (TokenType.CONTROL, TokenType.USER_DEFINED)]
    fixed[special_bytes] = types[special_bytes]
    if changed := np.count_nonzero(fixed != types):
        _LOG.info("the vocabulary has wrong types for byte tokens (%d): <0x00> to <0xFF> are taken as bytes, "
                  "and only these", changed)
    if 0 < len(tokens) < len(BYTE_TOKENS):
        missing = [text for text in BYTE_TOKENS if text not in ids]
        _LOG.info("the vocabulary has no token for %d of 256 bytes, such as %s", len(missing), missing[0])
    return fixed


def _marked(ids: Mapping[str, int], types: np.ndarray, merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The tokens whose text says that they are special: text -> id.

    Not those that merges build: Qwen has a token `</s>` that is just the beginning of many HTML tags. Gemma 4's is an
    HTML tag, too, as llama.cpp knows.
    """
    marked = {text: ids[text] for text in special.CONTROL_TEXTS | special.SHOWN_TEXTS if text in ids}
    if "<|tool_response>" in marked:
        marked.pop("</s>", None)
    doubtful = {text for text, token in marked.items() if types[token] == TokenType.NORMAL}
    if doubtful:
        for built in doubtful & {left + right for left, right in merges}:
            del marked[built]
    return marked


def _corrected(types: np.ndarray, marked: Mapping[str, int]) -> np.ndarray:
    """The types with those of special tokens set right, as llama.cpp does: files often have them as ordinary text."""
    types = types.copy()
    types[list(marked.values())] = TokenType.CONTROL
    shown = {marked[text] for text in special.SHOWN_TEXTS if text in marked} | special.part_separators(marked)
    types[list(shown)] = TokenType.USER_DEFINED
    types.flags.writeable = False
    return types


def _scores(metadata: Mapping[str, Any], size: int) -> np.ndarray:
    key = "tokenizer.ggml.scores"
    if key not in metadata:
        _LOG.info("the vocabulary has no %s: all tokens are taken as equally good", key)
        return np.zeros(size, np.float32)
    scores = _numbers(metadata, key, size, "fiu", "an array of numbers").astype(np.float32)
    if np.isnan(scores).any():
        raise LcpuError(f"{key} holds values that are not numbers: {_DAMAGED}")
    return scores


def _merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    key = "tokenizer.ggml.merges"
    merges = _strings(metadata, key)
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if not (set(map(len, pairs)) <= {2} and all(map(all, pairs))):
        bad = next(merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2 or not all(pair))
        raise LcpuError(f'{key} holds {bad!r}, which is not "left right": {_DAMAGED}')
    return pairs  # type: ignore[return-value]


def _named_ids(metadata: Mapping[str, Any], size: int, defaults: Mapping[str, int]) -> dict[str, int | None]:
    """The special tokens that keys name. One that is not there has its default, as in llama.cpp, or is none.

    A default that is past the end of a small vocabulary is no token either.
    """
    named: dict[str, int | None] = {}
    for name in ("bos", "eos", "unknown", "eot", "eom", *special.FILL_IN_END_TEXTS):
        key = f"tokenizer.ggml.{name}_token_id"
        default = defaults.get(name, size)
        named[name] = default if default < size else None
        if key in metadata:
            token = _integer(key, metadata[key])
            if 0 <= token < size:
                named[name] = token
            else:
                instead = "no token" if named[name] is None else f"token {named[name]}"
                _LOG.info("%s is %d, but the tokens are 0 to %d: %s is taken instead", key, token, size - 1, instead)
    return named


def _integer(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise _wrong_type(key, value, "an integer")
    return int(value)


def _more_ends(metadata: Mapping[str, Any], size: int) -> list[int]:
    """The tokens of `tokenizer.ggml.eos_token_ids`: some models have several that end a text."""
    key = "tokenizer.ggml.eos_token_ids"
    if key not in metadata:
        return []
    value = np.asarray(metadata[key])
    if value.ndim != 1 or (value.size and value.dtype.kind not in "iu"):
        raise _wrong_type(key, metadata[key], "an array of integers")
    ends = [int(token) for token in value if 0 <= token < size]
    if len(ends) < len(value):
        _LOG.info("%s names tokens that are not there: these are left out", key)
    return ends


def _adds_bos(metadata: Mapping[str, Any], bos: int | None, default: bool) -> bool:
    """Whether BOS goes before a text. A file that says so must say which token it is."""
    key = "tokenizer.ggml.add_bos_token"
    adds = _flag(metadata, key, default)
    if adds and key in metadata and bos is None:
        raise LcpuError(f"{key} is true, but tokenizer.ggml.bos_token_id names no token: {_DAMAGED}")
    return adds and bos is not None
