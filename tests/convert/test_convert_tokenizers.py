"""Tokenizers of checkpoints in GGUF: the engine makes of a text what `tokenizers` and `sentencepiece` do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from lcpu.convert.json_file import Config
from lcpu.convert.tokenizers import tokenizer_metadata
from lcpu.convert.tokenizers.pretokenizer import recognise
from lcpu.engine.tokenizer import from_metadata
from lcpu.engine.tokenizer.pretokenizers import PRETOKENIZERS
from lcpu.kernels.errors import LcpuError

from .checkpoints import TEXT, VOCAB, train_bpe, train_sentencepiece

TEXTS = [TEXT, "", " ", "  two  spaces ", "It's 1234567 o'clock\r\n\r\n", "<think>a<|eot_id|> b", "\0\x7f é 👩‍🚀\n\n\n"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
Metadata = dict[str, Any]


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[Metadata, list[str]]]:
    """convert({file name: content}, ...) -> the metadata of a tokenizer, and notes.

    A content is a Tokenizer, the bytes of a tokenizer.model, a text, or what goes into a JSON file.
    """

    def make(files: dict[str, Any], vocab_size: int = VOCAB, **config: Any) -> tuple[Metadata, list[str]]:
        for name, content in files.items():
            if isinstance(content, Tokenizer):
                content = content.to_str()
            if not isinstance(content, (bytes, str)):
                content = json.dumps(content)
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tokenizer_metadata(tmp_path, Config(tmp_path / "config.json", config), vocab_size)

    return make


def value(metadata: Metadata, key: str) -> Any:
    return metadata.get(f"tokenizer.ggml.{key}")


def type_of(metadata: Metadata, text: str) -> int:
    return value(metadata, "token_type")[value(metadata, "tokens").index(text)]


# ---- byte-level BPE ----


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "smollm", "gpt-2", "tekken", "gpt-4o", "deepseek-llm", "dbrx"])
def test_byte_level(convert, pre):
    tokenizer = train_bpe(pre)
    metadata, notes = convert({"tokenizer.json": tokenizer})
    assert notes == []
    name = value(metadata, "pre")
    assert PRETOKENIZERS[name].patterns == PRETOKENIZERS[pre].patterns
    assert PRETOKENIZERS[name].ignore_merges == PRETOKENIZERS[pre].ignore_merges
    ours = from_metadata(metadata)
    for text in TEXTS:
        assert ours.encode(text, parse_special=True) == tokenizer.encode(text).ids, repr(text)


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "smollm", "gpt-2", "tekken"])
def test_names_are_those_that_llama_cpp_writes(convert, name):
    assert value(convert({"tokenizer.json": train_bpe(name)})[0], "pre") == name


def test_types_and_gaps(convert):
    metadata, _ = convert({"tokenizer.json": train_bpe(size=300)}, vocab_size=320)
    tokens = value(metadata, "tokens")
    assert len(tokens) == 320
    assert tokens[305:] == [f"[PAD{token}]" for token in range(305, 320)]
    assert value(metadata, "token_type").tolist() == [NORMAL] * 300 + [CONTROL] * 4 + [USER_DEFINED] + [UNUSED] * 15


def test_tokens_that_look_special_are(convert):
    tokenizer = train_bpe()
    tokenizer.add_tokens([AddedToken("<|tool|>", special=False), AddedToken("tool", special=False)])
    metadata, _ = convert({"tokenizer.json": tokenizer})
    assert type_of(metadata, "<|tool|>") == CONTROL
    assert type_of(metadata, "tool") == USER_DEFINED


def test_added_tokens_without_a_row_are_left_out(convert):
    metadata, notes = convert({"tokenizer.json": train_bpe(size=300)}, vocab_size=303)
    (note,) = notes
    assert note.endswith("tokens that the model has no rows for, which are left out: '<stop>', '<think>'")
    assert len(value(metadata, "tokens")) == 303


def test_another_models_tokenizer(convert):
    with pytest.raises(LcpuError, match="has 305 tokens, but the model only 299: it is another model's tokenizer"):
        convert({"tokenizer.json": train_bpe(size=300)}, vocab_size=299)


def test_merges_in_both_spellings(convert):
    content = json.loads(train_bpe().to_str())
    pairs = content["model"]["merges"]
    assert isinstance(pairs[0], list)
    as_pairs, _ = convert({"tokenizer.json": content})
    content["model"]["merges"] = [" ".join(pair) for pair in pairs]
    as_text, _ = convert({"tokenizer.json": content})
    assert value(as_pairs, "merges") == value(as_text, "merges") == content["model"]["merges"]


def definition(*steps: Any) -> Any:
    return json.loads(pre_tokenizers.Sequence(list(steps)).__getstate__())


def byte_level(**how: Any) -> Any:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, "use_regex": False} | how)


THREES = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
LLAMA3, GPT2, O200K = (PRETOKENIZERS[name].patterns[0] for name in ("llama-bpe", "gpt-2", "gpt-4o"))


@pytest.mark.parametrize(
    ("steps", "ignore_merges", "name"),
    [
        ([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level()], True, "llama-bpe"),
        ([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level()], False, "dbrx"),
        ([pre_tokenizers.Split(Regex(O200K), "removed", invert=True), byte_level()], False, "gpt-4o"),
        ([pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)], False, "smollm"),
        ([byte_level(use_regex=True)], False, "gpt-2"),
        ([pre_tokenizers.Punctuation("contiguous"), byte_level(use_regex=True), THREES], False, "falcon"),
        ([pre_tokenizers.Punctuation("contiguous"), byte_level(use_regex=True), pre_tokenizers.Digits(), THREES], False,
         "falcon"),
    ],
)
def test_definitions(steps, ignore_merges, name):
    source = Path("tokenizer.json")
    assert recognise(definition(*steps), ignore_merges, source) == (name, False)
    if len(steps) == 1:
        assert recognise(json.loads(steps[0].__getstate__()), ignore_merges, source) == (name, False)


def test_a_space_in_front():
    assert recognise(definition(byte_level(use_regex=True, add_prefix_space=True)), False, Path("a")) == ("gpt-2", True)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([pre_tokenizers.Split(Regex(r"\d+"), "isolated"), byte_level()], r"the pre-tokenizer .*d\+.* is none that"),
        ([pre_tokenizers.Split(Regex(LLAMA3), "merged_with_next"), byte_level()], "has the step .*MergedWithNext"),
        ([pre_tokenizers.Split(Regex(r"[a-z]+"), "removed", invert=True), byte_level()], "has the step .*Removed"),
        ([pre_tokenizers.Split(" ", "isolated"), byte_level()], "has the step .*'String': ' '"),
        ([pre_tokenizers.Whitespace(), byte_level()], "has the step {'type': 'Whitespace'}, which lcpu cannot do"),
        ([pre_tokenizers.Punctuation("isolated"), byte_level(use_regex=True), THREES], "cuts texts after its step"),
        ([byte_level()], r"the pre-tokenizer \(\) \(without ignore_merges\) is none"),
    ],
)
def test_unknown_definitions_are_refused(steps, message):
    with pytest.raises(LcpuError, match=f"^tokenizer.json: {message}|tokenizer.json: the pre-tokenizer {message}") as e:
        recognise(definition(*steps), False, Path("tokenizer.json"))
    assert "\n" not in str(e.value)


def test_normalizers(convert):
    tokenizer = train_bpe()
    tokenizer.normalizer = normalizers.NFC()
    convert({"tokenizer.json": tokenizer})
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    with pytest.raises(LcpuError, match=r"the normalizer {'type': 'Lowercase'} changes texts"):
        convert({"tokenizer.json": tokenizer})


def test_other_kinds(convert):
    with pytest.raises(LcpuError, match=r"tokenizer\.json: has a vocabulary of the kind 'Unigram'; lcpu converts BPE"):
        convert({"tokenizer.json": Tokenizer(Unigram([("a", 0.0)]))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab": {"a": "b"}}, "holds a token whose id is no number"),
        ({"vocab": {"a": -1}}, "holds a token whose id is no number"),
        ({"merges": ["a b c"]}, "the merge 'a b c' is not two tokens"),
        ({"merges": [7]}, "the merge '7' is not two tokens"),
        ({"merges": None}, "has a vocabulary of the kind 'BPE'"),
        ({"vocab": None}, "has a vocabulary of the kind 'BPE'"),
    ],
)
def test_damage(convert, change, message):
    content = json.loads(train_bpe().to_str())
    content["model"] |= change
    with pytest.raises(LcpuError, match=f"tokenizer.json: {message}"):
        convert({"tokenizer.json": content})


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"chat_template": 7}},
        {"tokenizer_config.json": {"chat_template": "\ud800"}},
        {"tokenizer.json": json.loads(train_bpe().to_str()) | {"post_processor": [7]}},
        {"tokenizer.json": json.loads(train_bpe().to_str()) | {"pre_tokenizer": {"pretokenizers": 7}}},
    ],
)
def test_files_of_another_shape(convert, files):
    with pytest.raises(LcpuError, match=r": the files of the tokenizer are damaged \(\w+Error: .*\): download them"):
        convert({"tokenizer.json": train_bpe()} | files)


def test_none_at_all(convert):
    with pytest.raises(LcpuError, match=r"has neither tokenizer\.json nor tokenizer\.model"):
        convert({"vocab.json": "{}"})


# ---- SentencePiece ----


def as_tokenizer_json(model: bytes) -> Tokenizer:
    """What transformers makes of a tokenizer.model: a merge for every way to build a piece, by score."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = {processor.id_to_piece(token): token for token in range(processor.get_piece_size())}
    merges = []
    for piece, token in ids.items():
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += [(-processor.get_score(token), ids[left], ids[right], (left, right)) for left, right in pairs
                   if left in ids and right in ids and not processor.is_byte(token)]
    bpe = BPE(ids, [pair for *_, pair in sorted(merges)], fuse_unk=True, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(bpe)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


@pytest.fixture(scope="module")
def model() -> bytes:
    return train_sentencepiece()


SPACES = {
    "prepend": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, True),
    "replace": (normalizers.Sequence([normalizers.Replace(" ", "▁")]), None, False),
    "replace and split": (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), False),
    "metaspace": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), True),
    "metaspace, never": (None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), False),
}


def test_tokenizer_model(convert, model):
    metadata, _ = convert({"tokenizer.model": model})
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert value(metadata, "tokens")[: processor.get_piece_size()] == processor.id_to_piece(
        list(range(processor.get_piece_size()))
    )
    assert value(metadata, "scores").dtype == np.float32
    assert value(metadata, "token_type")[:5].tolist() == [UNKNOWN, CONTROL, CONTROL, BYTE, BYTE]
    assert value(metadata, "add_bos_token") is False  # for want of a name for it
    ours = from_metadata(metadata)
    for text in TEXTS:
        assert ours.encode(text, add_bos=False) == processor.encode(text), repr(text)


@pytest.mark.parametrize("spaces", SPACES)
def test_tokenizer_json_made_of_a_tokenizer_model(convert, model, spaces):
    tokenizer = as_tokenizer_json(model)
    normalizer, pretokenizer, adds_space = SPACES[spaces]
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pretokenizer is not None:
        tokenizer.pre_tokenizer = pretokenizer
    metadata, _ = convert({"tokenizer.json": tokenizer})
    assert value(metadata, "add_space_prefix") is adds_space
    assert value(metadata, "token_type")[:5].tolist() == [UNKNOWN, CONTROL, CONTROL, BYTE, BYTE]
    ours = from_metadata(metadata)
    for text in TEXTS:
        # `tokenizers` leaves an empty text empty, and Metaspace puts no space before a space, unlike SentencePiece.
        if text and not (text.startswith(" ") and spaces == "metaspace"):
            assert ours.encode(text, add_bos=False) == tokenizer.encode(text).ids, repr(text)


def test_a_tab_in_the_place_of_its_byte_token(convert, model):
    """As the tokenizer.json of Gemma 1 and 2 has it, with runs of line breaks, tabs and spaces as added tokens."""
    content = json.loads(as_tokenizer_json(model).to_str())
    content["model"]["merges"] = [pair for pair in content["model"]["merges"] if "\t" not in "".join(pair)]
    ids = content["model"]["vocab"] = {f"<unused{token}>" if "\t" in text else text: token
                                       for text, token in content["model"]["vocab"].items()}
    ids["\t"] = ids.pop("<0x09>")
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.normalizer, tokenizer.pre_tokenizer, _ = SPACES["replace and split"]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "\t\t", "\t\t\t")])
    metadata, _ = convert({"tokenizer.json": tokenizer}, tokenizer.get_vocab_size())
    assert type_of(metadata, "<0x09>") == BYTE
    ours = from_metadata(metadata)
    for text in (*TEXTS, "\t", "a\tb\t\tc\t\t\t\td", "\n\n\n  \t \n"):
        ids = ours.encode(text, add_bos=False)
        assert ids == tokenizer.encode(text).ids, repr(text)
        assert ours.decode(ids) == text.encode("utf-8", "replace").decode() or not text


def test_tokenizer_json_wins_over_the_tokenizer_model_that_it_was_made_of(convert, model):
    tokenizer = as_tokenizer_json(model)
    tokenizer.normalizer = SPACES["prepend"][0]
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens(["[INST]"])
    metadata, _ = convert({"tokenizer.model": model, "tokenizer.json": tokenizer}, VOCAB + 2)
    assert type_of(metadata, "<tool>") == USER_DEFINED
    assert type_of(metadata, "[INST]") == CONTROL
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in TEXTS[:5]:
        assert from_metadata(metadata).encode(text, add_bos=False) == processor.encode(text), repr(text)


def test_added_tokens_without_a_tokenizer_json(convert, model):
    size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    files = {"tokenizer.model": model, "added_tokens.json": {"<old>": size, "<new>": size + 1},
             "tokenizer_config.json": {"added_tokens_decoder": {str(size + 1): {"content": "<new>", "special": True}}}}
    metadata, _ = convert(files, vocab_size=size + 2)
    assert value(metadata, "tokens")[size:] == ["<old>", "<new>"]
    assert value(metadata, "token_type")[size:].tolist() == [USER_DEFINED, CONTROL]


def test_user_defined_pieces_are_found_in_the_text_as_it_is(convert):
    model = train_sentencepiece(user_defined_symbols=["▁▁▁▁"], add_dummy_prefix=False)
    metadata, _ = convert({"tokenizer.model": model})
    assert type_of(metadata, "    ") == USER_DEFINED
    # SentencePiece puts a space before a text only, engines also before what follows such a piece.
    with pytest.raises(LcpuError, match=r"tokenizer\.model: the text '.*' would get other ids from a GGUF file than"):
        convert({"tokenizer.model": train_sentencepiece(user_defined_symbols=["▁▁▁▁"])})


def test_no_space_in_front(convert):
    metadata, _ = convert({"tokenizer.model": train_sentencepiece(add_dummy_prefix=False)})
    assert value(metadata, "add_space_prefix") is False


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"IQ== 0\nIg== 1\n",  # tiktoken's, as Llama 3 has it
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x05\x0a\x09abc",
        b"\x0a\x04\x0a\x02\xff\xff",
        b"\x08\x01",
    ],
)
def test_other_files(convert, content):
    with pytest.raises(LcpuError, match=r"tokenizer\.model: is not a SentencePiece model"):
        convert({"tokenizer.model": content})


def test_a_model_that_is_cut_off(convert, model):
    with pytest.raises(LcpuError, match=r"tokenizer\.model: is not a SentencePiece model"):
        convert({"tokenizer.model": model[:1000]})


def test_another_kind_of_sentencepiece_model(convert):
    with pytest.raises(LcpuError, match=r"tokenizer\.model: is a SentencePiece model of another kind than BPE"):
        convert({"tokenizer.model": train_sentencepiece(70, "unigram", byte_fallback=False)})


@pytest.mark.parametrize(
    ("normalizer", "pretokenizer"),
    [
        (None, None),
        (normalizers.NFKC(), None),
        (None, pre_tokenizers.Metaspace(split=True)),
        (None, pre_tokenizers.Whitespace()),
    ],
)
def test_unknown_rules_for_spaces_are_refused(convert, model, normalizer, pretokenizer):
    tokenizer = as_tokenizer_json(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pretokenizer is not None:
        tokenizer.pre_tokenizer = pretokenizer
    with pytest.raises(LcpuError, match=r"tokenizer\.json: the pre-tokenizer or normalizer .* is none that lcpu has"):
        convert({"tokenizer.json": tokenizer})


# ---- special tokens, what goes around a text, templates ----

BOS, END, EOT, STOP, THINK = range(300, 305)


def special(convert: Callable[..., tuple[Metadata, list[str]]], files: dict[str, Any] | None = None,
            **config: Any) -> Metadata:
    return convert({"tokenizer.json": train_bpe(size=300)} | (files or {}), vocab_size=320, **config)[0]


@pytest.mark.parametrize(
    ("files", "config"),
    [
        ({"tokenizer_config.json": {"eos_token": "<|eot_id|>", "unk_token": "<stop>", "pad_token": None}}, {}),
        ({"tokenizer_config.json": {"eos_token": {"content": "<|eot_id|>"}, "unk_token": "<stop>"}}, {}),
        ({"special_tokens_map.json": {"eos_token": "<|eot_id|>", "unk_token": {"content": "<stop>"}}}, {}),
        ({"tokenizer_config.json": {"eos_token": "not a token"}}, {"eos_token_id": EOT, "unk_token_id": STOP}),
        ({"generation_config.json": {"eos_token_id": [EOT], "unk_token_id": STOP}}, {"eos_token_id": None}),
        ({}, {"eos_token_id": [EOT, END], "unk_token_id": STOP, "pad_token_id": -1}),
    ],
)
def test_special_ids(convert, files, config):
    metadata = special(convert, files, **config)
    found = {key: value(metadata, f"{key}_token_id") for key in ("bos", "eos", "unknown", "padding")}
    assert found == {"bos": BOS, "eos": EOT, "unknown": STOP, "padding": None}


@pytest.mark.parametrize(
    ("settings", "adds_bos", "adds_eos"),
    [
        ({}, True, False),
        ({"add_bos_token": False}, False, False),
        ({"add_bos_token": True, "eos_token": "<|eot_id|>", "add_eos_token": True}, True, True),
        ({"add_eos_token": True}, True, False),
    ],
)
def test_what_goes_around_a_text(convert, settings, adds_bos, adds_eos):
    metadata = special(convert, {"tokenizer_config.json": settings})
    assert (value(metadata, "add_bos_token"), value(metadata, "add_eos_token")) == (adds_bos, adds_eos)
    ids = from_metadata(metadata).encode("a")
    assert (ids[0] == BOS, ids[-1] == EOT) == (adds_bos, False)  # a text that is to be continued gets no EOS


def test_nothing_goes_around_a_text_unless_said(convert):
    content = json.loads(train_bpe(size=300).to_str()) | {"post_processor": None}
    metadata = special(convert, {"tokenizer.json": content}, bos_token_id=BOS)
    assert value(metadata, "bos_token_id") == BOS
    assert value(metadata, "add_bos_token") is False


def test_bos_is_usual_with_sentencepiece(convert, model):
    metadata, _ = convert({"tokenizer.model": model, "tokenizer_config.json": {"bos_token": "<s>"}})
    assert value(metadata, "add_bos_token") is True


def test_every_token_that_ends_a_turn_ends_it(convert):
    files = {"tokenizer_config.json": {"eos_token": "<|eot_id|>"},
             "generation_config.json": {"eos_token_id": [END, EOT, STOP, THINK]}}
    metadata = special(convert, files)
    assert value(metadata, "eos_token_id") == EOT
    assert (value(metadata, "eot_token_id"), value(metadata, "eom_token_id")) == (STOP, THINK)
    assert from_metadata(metadata).end_ids == {END, EOT, STOP, THINK}


def test_more_ends_of_a_turn_than_gguf_has_keys_for(convert):
    content = json.loads(train_bpe(size=300).to_str())
    files = {"tokenizer.json": content, "tokenizer_config.json": {"eos_token": "<|eot_id|>"},
             "generation_config.json": {"eos_token_id": [END, STOP, THINK, BOS]}}
    metadata, (note,) = convert(files, vocab_size=320)
    assert (value(metadata, "eot_token_id"), value(metadata, "eom_token_id")) == (STOP, THINK)
    assert value(metadata, "eos_token_ids").dtype == np.int32
    assert value(metadata, "eos_token_ids").tolist() == [EOT, END, STOP, THINK, BOS]
    assert note == ("5 tokens end a text: tokenizer.ggml.eos_token_ids lists them; a program that does not read this "
                    "key goes on after '<|begin_of_text|>'")


def test_known_ends_of_turn_need_no_key(convert):
    files = {"generation_config.json": {"eos_token_id": [EOT, END, 10**6]}}
    metadata = special(convert, files)
    assert value(metadata, "eot_token_id") is None
    assert from_metadata(metadata).end_ids == {END, EOT}


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"tokenizer_config.json": {"chat_template": "A"}}, "A"),
        ({"chat_template.json": {"chat_template": "B"}}, "B"),
        ({"chat_template.jinja": "C\n{{ é }}"}, "C\n{{ é }}"),
        ({"chat_template.jinja": "C", "tokenizer_config.json": {"chat_template": "A"}}, "C"),
        ({"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "D"}]}}, "D"),
        ({}, None),
    ],
)
def test_chat_template(convert, files, template):
    metadata = special(convert, files)
    assert metadata.get("tokenizer.chat_template") == template
    assert "tokenizer.chat_templates" not in metadata


def test_further_chat_templates(convert):
    templates = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    metadata = special(convert, {"tokenizer_config.json": {"chat_template": templates}})
    assert metadata["tokenizer.chat_template"] == "D"
    assert metadata["tokenizer.chat_template.tool_use"] == "T"
    assert metadata["tokenizer.chat_templates"] == ["tool_use"]
