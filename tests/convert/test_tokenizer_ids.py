"""Random texts: a converted tokenizer gives the ids of the library `tokenizers`, for each kind that is accepted.

What GGUF cannot express is refused in one line: the other half of this file.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from lcpu.convert.json_file import Config
from lcpu.convert.tokenizers import tokenizer_metadata
from lcpu.engine.tokenizer import from_metadata
from lcpu.kernels.errors import LcpuError

from .checkpoints import train_bpe, train_sentencepiece
from .test_convert_tokenizers import as_tokenizer_json

TEXTS = 400
SPECIALS = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<tool>", "[INST]", "<|eot_id|>")
WORDS = (
    "hello", "the", " the", "The", "robot", "little", "Once upon", "12345", "7", "x=[1,22]", "don't", "'LL", "é",
    "Größe", "日本語", "Ελλ", "🙂", "👩‍🚀", "!", "...", "<", "|>", "_", "▁", "\u00a0", "\0",
)  # fmt: skip
SPACES = (" ", "  ", "   ", " " * 9, "\n", "\n\n", "\r\n", "\t", " \n ")
Content = dict[str, Any]


def random_text(source: random.Random) -> str:
    """Words, white space and special tokens in any order: next to each other, and at both ends."""
    return "".join(source.choice(source.choice((WORDS, SPACES, SPECIALS))) for _ in range(source.randint(0, 12)))


def added(content: Content, *tokens: str | Content) -> Content:
    """`content` with further added tokens, which are special unless they say otherwise."""
    content = copy.deepcopy(content)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for token in tokens:
        entry = {"content": token} if isinstance(token, str) else token
        content["added_tokens"].append({"id": size_of(content), **plain, **entry})
    return content


def size_of(content: Content) -> int:
    return 1 + max([*content["model"]["vocab"].values(), *(entry["id"] for entry in content["added_tokens"])])


@cache
def byte_level(pre: str = "qwen2") -> Content:
    return added(json.loads(train_bpe(pre).to_str()), "<|im_start|>", "<|im_end|>")


@cache
def sentencepiece() -> Content:
    """As transformers makes it of a Llama's tokenizer.model, without rules for spaces."""
    content = json.loads(as_tokenizer_json(train_sentencepiece()).to_str())
    return added(content, "<|im_end|>", "[INST]", {"content": "<tool>", "special": False})


def single(*names: str) -> Content:
    """A post-processor: the tokens around a text, which is "A"."""
    content = sentencepiece()
    ids = {entry["content"]: entry["id"] for entry in content["added_tokens"]}
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if name == "A" else {"SpecialToken": {"id": name, "type_id": 0}}
              for name in names]
    specials = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in names if name != "A"}
    return {"type": "TemplateProcessing", "single": pieces, "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": specials}


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
GPT2 = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def spm(normalizers: list[Content] | None = None, scheme: str | None = None, **changes: Any) -> Content:
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    rules = {"normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
             "pre_tokenizer": metaspace if scheme else None}
    return sentencepiece() | rules | changes


ACCEPTED: dict[str, Callable[[], Content]] = {
    **{f"byte level, {pre}": (lambda pre=pre: byte_level(pre))  # type: ignore[misc]
       for pre in ("qwen2", "llama-bpe", "smollm", "gpt-2", "gpt-4o", "deepseek-llm")},
    "a space in front": lambda: byte_level("gpt-2") | {"pre_tokenizer": GPT2},
    "normalized added token": lambda: added(byte_level(), {"content": "<tool>", "special": False, "normalized": True}),
    "prepend": lambda: spm([PREPEND, REPLACE]),
    "replace": lambda: spm([REPLACE]),
    "first": lambda: spm(scheme="first"),
    "always": lambda: spm(scheme="always"),
    "never": lambda: spm(scheme="never"),
    "BOS": lambda: spm(scheme="first", post_processor=single("<s>", "A")),
}


def convert(folder: Path, content: Content, name: str = "Tiny", **files: Any) -> tuple[dict[str, Any], list[str]]:
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for file, value in files.items():
        (folder / f"{file}.json").write_text(json.dumps(value))
    return tokenizer_metadata(folder, Config(folder / "config.json", {}), size_of(content), name)


@pytest.mark.parametrize("kind", ACCEPTED)
def test_ids_are_those_of_the_library(tmp_path, kind):
    content = ACCEPTED[kind]()
    ours = from_metadata(convert(tmp_path, content)[0])
    theirs = Tokenizer.from_str(json.dumps(content))
    source = random.Random(kind)
    for _ in range(TEXTS):
        text = random_text(source)
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids, repr(text)


def test_phi_3_is_known_by_its_name(tmp_path):
    content = added(spm(scheme="first"), {"content": "<|user|>", "rstrip": True})
    for entry in content["added_tokens"]:
        entry["rstrip"] = entry["content"] not in ("<unk>", "<s>")
    metadata, _ = convert(tmp_path, content, "Phi-3-llama")
    ours = from_metadata(metadata | {"general.name": "Phi-3-llama"})
    theirs = Tokenizer.from_str(json.dumps(content))
    for text in ("<|user|>\nhello<|im_end|>\n  the", "<|user|>  <|user|>\n", "hello</s> the"):
        assert ours.encode(text, add_bos=False, parse_special=True) == theirs.encode(text).ids
    with pytest.raises(LcpuError, match=r"the added token .* has \"rstrip\": true, which a GGUF file cannot express"):
        convert(tmp_path, content)
    with pytest.raises(LcpuError, match="keeps the white space after it, but engines drop it in models named Phi-3"):
        convert(tmp_path, spm(scheme="first"), "Phi-3-llama")


def test_tokens_that_are_normalized_get_a_note(tmp_path):
    """The library finds such a token only after a space, which no engine does."""
    content = added(spm([PREPEND, REPLACE]), {"content": "<user>", "special": False, "normalized": True})
    _, notes = convert(tmp_path, content)
    assert notes == ["added tokens that tokenizer.json finds only after a space are found everywhere: '<user>'"]


def test_nfc_gets_a_note(tmp_path):
    _, (note,) = convert(tmp_path, byte_level() | {"normalizer": {"type": "NFC"}})
    assert note.startswith("tokenizer.json brings texts into Unicode's form NFC")


def test_pieces_that_no_merge_builds(tmp_path):
    content = spm(scheme="first")
    merges = content["model"]["merges"]
    longest = max(map("".join, merges), key=len)  # no other is made of it
    content = changed(content, merges=[pair for pair in merges if "".join(pair) != longest])
    ours = from_metadata(convert(tmp_path, content)[0])
    theirs = Tokenizer.from_str(json.dumps(content))
    word = longest.replace("▁", " ").strip()
    for text in (word, f"x{word} {word}{word}", f"the {word}"):
        assert ours.encode(text, parse_special=True) == theirs.encode(text).ids
        assert content["model"]["vocab"][longest] not in theirs.encode(text).ids


def test_tokens_that_are_special_by_name_get_a_note(tmp_path):
    content = copy.deepcopy(byte_level()) | {"post_processor": None}
    content["model"]["vocab"]["<fim_prefix>"] = len(content["model"]["vocab"])
    for entry in content["added_tokens"]:
        entry["id"] += 1
    _, notes = convert(tmp_path, content)
    assert notes == ["engines read these texts as special tokens, which tokenizer.json does not: '<fim_prefix>'"]


def changed(content: Content, **model: Any) -> Content:
    content = copy.deepcopy(content)
    content["model"] |= model
    return content


def without_a_merge(content: Content) -> Content:
    """As if it had been trained without SentencePiece: one way to build each piece."""
    by_piece = {"".join(pair): pair for pair in content["model"]["merges"]}
    return changed(content, merges=list(by_piece.values()))


def two_texts(content: Content) -> Content:
    content = copy.deepcopy(content)
    content["model"]["vocab"]["zzz"] = 290
    return content


SPLIT_THEN_PREFIX = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2]}
AFTER_BYTES = {"type": "Sequence", "pretokenizers": [{**GPT2, "add_prefix_space": False},
                                                     {"type": "Digits", "individual_digits": True}]}
ROBERTA = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True,
           "add_prefix_space": False}
UNSAYABLE = "the added token '<user>' has \"{}\": true, which a GGUF file cannot express: texts would get other ids"

REFUSED: dict[str, tuple[Callable[[], Content], str]] = {
    "lstrip": (lambda: added(byte_level(), {"content": "<user>", "lstrip": True}), UNSAYABLE.format("lstrip")),
    "rstrip": (lambda: added(byte_level(), {"content": "<user>", "rstrip": True}), UNSAYABLE.format("rstrip")),
    "single_word": (lambda: added(byte_level(), {"content": "<user>", "single_word": True, "special": False}),
                    UNSAYABLE.format("single_word")),
    "end_of_word_suffix": (lambda: changed(byte_level(), end_of_word_suffix="</w>"),
                           "the model has end_of_word_suffix '</w>', which a GGUF file cannot express"),
    "prefix": (lambda: changed(byte_level(), continuing_subword_prefix="##"), "has continuing_subword_prefix '##'"),
    "dropout": (lambda: changed(byte_level(), dropout=0.1), "the model has dropout '0.1'"),
    "a space before every word": (lambda: byte_level("smollm") | {"pre_tokenizer": SPLIT_THEN_PREFIX},
                                  "puts a space before every word"),
    "steps after ByteLevel": (lambda: byte_level() | {"pre_tokenizer": AFTER_BYTES}, "cuts texts after its step Byte"),
    "two tokens in front": (lambda: spm(scheme="first", post_processor=single("<s>", "[INST]", "A")),
                            r"texts become '<s> \[INST\] A'; a GGUF file allows one token before and one after"),
    "another post-processor": (lambda: spm(scheme="first", post_processor=ROBERTA), "'RobertaProcessing' is none that"),
    "no byte_fallback": (lambda: changed(spm(scheme="first"), byte_fallback=False), "the model has no byte_fallback"),
    "ignore_merges": (lambda: changed(spm(scheme="first"), ignore_merges=True), "the model has ignore_merges"),
    "merges": (lambda: without_a_merge(spm(scheme="first")), "the merges that build '.*' are not those of a Sentence"),
    "one token, two ids": (lambda: added(byte_level(), "the", {"content": "the", "id": 320}),
                           "the token 'the' has two ids, 307 and 320, which a GGUF file cannot hold"),
    "two tokens, one id": (lambda: two_texts(byte_level()), "have the same id, 290, which a GGUF file cannot hold"),
    "ids with a gap": (lambda: added(byte_level(), {"content": "<user>", "id": 320}),
                       "the added token '<user>' has the id 320, but the library `tokenizers` gives it 307"),
    "tokens that overlap": (lambda: added(byte_level(), "ab", "bcd"),
                            "the text 'abcd' would get other ids from a GGUF file than from this tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_gguf_cannot_say_is_refused(tmp_path, kind):
    content, message = REFUSED[kind]
    with pytest.raises(LcpuError, match=f"tokenizer.json: .*{message}") as caught:
        convert(tmp_path, content())
    assert "\n" not in str(caught.value)


def test_bos_that_is_another_one(tmp_path):
    content = spm(scheme="first", post_processor=single("[INST]", "A"))
    with pytest.raises(LcpuError, match=r"tokenizer\.json puts token \d+ around a text, but bos_token is token 1"):
        convert(tmp_path, content, tokenizer_config={"bos_token": "<s>"})


def test_bos_is_usual_for_a_llama_tokenizer_only(tmp_path):
    settings = {"bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    metadata, _ = convert(tmp_path, spm(scheme="first"), tokenizer_config=settings)
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    settings["tokenizer_class"] = "LlamaTokenizer"
    metadata, _ = convert(tmp_path, spm(scheme="first"), tokenizer_config=settings)
    assert metadata["tokenizer.ggml.add_bos_token"] is True


def test_a_filler_does_not_take_the_text_of_a_token(tmp_path):
    content = added(byte_level(), "[PAD310]")
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    metadata, _ = tokenizer_metadata(tmp_path, Config(tmp_path / "config.json", {}), 312)
    assert metadata["tokenizer.ggml.tokens"][307:] == ["[PAD310]", "[PAD308]", "[PAD309]", "[[PAD310]]", "[PAD311]"]


# ---- tokenizer.model ----


def test_transformers_reads_a_tokenizer_model_as_its_settings_say(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(train_sentencepiece())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
    metadata, _ = tokenizer_metadata(tmp_path, Config(tmp_path / "config.json", {}), 384)
    assert metadata["tokenizer.ggml.prepend_scheme"] == "first"
    (tmp_path / "tokenizer_config.json").write_text("{}")
    metadata, _ = tokenizer_metadata(tmp_path, Config(tmp_path / "config.json", {}), 384)
    assert "tokenizer.ggml.prepend_scheme" not in metadata


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization_rule_name": "nfkc"}, "brings characters into another form before it looks for tokens"),
        ({"remove_extra_whitespaces": True}, "removes spaces before it looks for tokens"),
        ({"byte_fallback": False, "size": 110}, "has not all of the byte tokens <0x00> to <0xFF>"),
        ({"treat_whitespace_as_suffix": True}, "marks the ends of words"),
    ],
)
def test_a_tokenizer_model_that_changes_texts(tmp_path, options, message):
    (tmp_path / "tokenizer.model").write_bytes(train_sentencepiece(**options))
    with pytest.raises(LcpuError, match=rf"tokenizer\.model: {message}"):
        tokenizer_metadata(tmp_path, Config(tmp_path / "config.json", {}), 384)
