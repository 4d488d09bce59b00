"""Tokenizers: vocabularies of any content, and texts of any bytes. A case is a GGUF file with its text in a key."""

from __future__ import annotations

from pathlib import Path
from random import Random

from lcpu.engine.gguf_file import GGUFFile
from lcpu.engine.tokenizer import from_metadata
from lcpu.engine.tokenizer.bpe import BYTE_CHARACTERS
from lcpu.engine.tokenizer.pretokenizers import PRETOKENIZERS

from .gguf_files import pair, written
from .mutate import altered, mutated

SHARE = 6
_TEXT = "fuzz.text"
_TYPES = [2, 3, 3] + [6] * 256 + [1] * 9
_SPM_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "é",
               "<|im_end|>", "▁▁", "abc"]
_BPE_TOKENS = [*BYTE_CHARACTERS.values(), "ab", "Ġa", "abc", "<|endoftext|>", "<|im_start|>", "123"]
_MERGES = ["a b", "Ġ a", "ab c", "1 2", "12 3"]
_TOKEN_WORDS = [word.encode() for word in ("", " ", "\0", "▁", "<0xZZ>", "<0x00>", "a", "aa", "<unk>", "<s>", "é",
                                          "🙂", "Ġ", "x" * 300, "<|im_start|>", "\ufeff", "a b",
                                          "a b c", " a")]
_NO_TEXTS = [b"\xff", b"\xed\xa0\x80"]
_TEXTS = ["Hello, world!  \n\n 12345 it's", "ab abc a▁b <|im_start|> </s><s>", "é🙂日本語\u0301\u200d", " " * 50,
          "a" * 200, "\0\1\x7f\x80\uffff", "1" * 100, "\r\n\t \u3000", "'S'LL'd", "-._/\\" * 10]


def _array(key: str, strings: list[str], random: Random) -> bytes:
    """A list of strings, in which some are others, and rarely more or fewer."""
    head, items = pair(key, ["x"]), [each.encode() for each in strings]
    if random.random() < 0.1:
        items = mutated(random, [items], _TOKEN_WORDS)
    for _ in range(random.choice((0, 1, 3, 9))):
        at = random.randrange(len(items)) if random.random() < 0.1 else -random.randrange(1, min(len(items), 9) + 1)
        kind = random.random()
        words = _NO_TEXTS if kind > 0.99 else _TOKEN_WORDS
        items[at] = altered(random, items[at]) if kind < 0.06 else random.choice(words)
    counted = b"".join(len(item).to_bytes(8, "little") + item for item in items)
    return head[: -8 - 9] + len(items).to_bytes(8, "little") + counted


def case(random: Random) -> bytes:
    spm = random.random() < 0.6  # the quicker one
    pre = random.choice(sorted(PRETOKENIZERS)) if random.random() < 0.3 else random.choice(("default", "llama-bpe"))
    tokens = _SPM_TOKENS if spm else _BPE_TOKENS
    pairs = [pair("tokenizer.ggml.model", "llama" if spm else "gpt2"), pair("tokenizer.ggml.pre", pre),
             _array("tokenizer.ggml.tokens", tokens, random)]
    types = _TYPES if spm else [1] * len(tokens)
    if random.random() < 0.3:
        types = [random.randrange(7) if random.random() < 0.1 else each for each in types]
    pairs.append(pair("tokenizer.ggml.token_type", types))
    if spm:
        pairs.append(pair("tokenizer.ggml.scores", [float(-index) for index in range(len(tokens))]))
    else:
        pairs.append(_array("tokenizer.ggml.merges", _MERGES, random))
    for name in ("bos", "eos", "unknown", "eot"):
        if random.random() < 0.5:
            pairs.append(pair(f"tokenizer.ggml.{name}_token_id", random.choice((0, 1, 2, 5, 100, 260, 2**32 - 1))))
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if random.random() < 0.3:
            pairs.append(pair(f"tokenizer.ggml.{name}", random.random() < 0.5))
    if random.random() < 0.2:
        pairs = mutated(random, [pairs])
    said = random.choice(_TEXTS).encode()
    for _ in range(random.randrange(3)):
        said = altered(random, said)
    head = pair(_TEXT, "")[:-8]
    return written([*pairs, head + len(said).to_bytes(8, "little") + said], [], 0)


def run(path: Path) -> None:
    with GGUFFile.open(path) as file:
        said = file.metadata.get(_TEXT)
        tokenizer = from_metadata(file.metadata)
        said = said if isinstance(said, str) else "a"
        for special in (False, True):
            ids = tokenizer.encode(said, parse_special=special)
            assert all(0 <= token < tokenizer.vocab_size for token in ids)
            tokenizer.decode(ids)
        for token in range(min(tokenizer.vocab_size, 300)):
            tokenizer.token_bytes(token, skip_special=False)
