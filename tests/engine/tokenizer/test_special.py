"""Special tokens: in a text, and at the end of a generation."""

from __future__ import annotations

import pytest

from lcpu.engine.tokenizer import from_metadata
from lcpu.engine.tokenizer.special import partition

NONE: frozenset[int] = frozenset()


def add(metadata, *tokens, types=3, **changes):
    """The metadata of a small vocabulary with more tokens at its end."""
    return {
        **metadata,
        "tokenizer.ggml.tokens": [*metadata["tokenizer.ggml.tokens"], *tokens],
        "tokenizer.ggml.token_type": [*metadata["tokenizer.ggml.token_type"], *[types] * len(tokens)],
        **({"tokenizer.ggml.scores": [*metadata["tokenizer.ggml.scores"], *[0.0] * len(tokens)]}
           if "tokenizer.ggml.scores" in metadata else {}),
        **changes,
    }  # fmt: skip


def ends(metadata):
    """The texts of the tokens that end a generation."""
    tokenizer = from_metadata(metadata)
    return {tokenizer.vocabulary.tokens[token] for token in tokenizer.end_ids}


def test_partition():
    tokens = [("<abc>", 7), ("<a", 8), (">", 9)]
    assert partition("", tokens, NONE) == []
    assert partition("plain", tokens, NONE) == ["plain"]
    assert partition("x<abc>", tokens, NONE) == ["x", 7]
    assert partition("<abc><a b>", tokens, NONE) == [7, 8, " b", 9]
    assert partition(">>", tokens, NONE) == [9, 9]


def test_a_longer_token_wins_wherever_it_is():
    assert partition("aab", [("ab", 1), ("aa", 2)], NONE) == ["a", 1]


def test_white_space_after_some_tokens_goes():
    assert partition("<a> \n x<b> y<a> ", [("<a>", 1), ("<b>", 2)], frozenset({1})) == [1, "x", 2, " y", 1]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_control_tokens_are_found_only_on_request(metadata_of, kind, tokens_of):
    tokenizer = from_metadata(metadata_of[kind]())
    assert tokens_of(tokenizer, "<|im_end|>", parse_special=True) == ["<|im_end|>"]
    plain = tokenizer.encode("<|im_end|>")
    assert not set(plain) & tokenizer.end_ids
    assert tokenizer.decode(plain) == "<|im_end|>"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_user_defined_tokens_are_always_found(metadata_of, kind):
    tokenizer = from_metadata(metadata_of[kind]())
    tool = tokenizer.vocabulary.ids["<tool>"]
    assert tool in tokenizer.encode("h<tool>o")
    if kind == "gpt2":  # the other puts a space after special tokens
        assert tokenizer.decode(tokenizer.encode("h<tool>o")) == "h<tool>o"


@pytest.mark.parametrize(("name", "space"), [("Phi-3 mini", []), ("llama", ["▁"])])
def test_phi3_takes_the_space_after_special_tokens(metadata_of, tokens_of, name, space):
    tokenizer = from_metadata({**metadata_of["llama"](), "general.name": name})
    after = tokens_of(tokenizer, "<|im_end|> he<s> he", parse_special=True)
    assert after == ["<|im_end|>", *space, "▁he", "<s>", "▁", "▁he"]


def test_what_ends_a_generation(metadata_of):
    assert ends(metadata_of["llama"]()) == {"</s>", "<|im_end|>"}
    assert ends(metadata_of["gpt2"]()) == {"<|im_end|>"}
    many = add(metadata_of["gpt2"](), "<|eot_id|>", "<|endoftext|>", "<fim_pad>", "<|file_sep|>", "<|user|>")
    assert ends(many) == {"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<fim_pad>", "<|file_sep|>"}


def test_keys_name_ends_too(metadata_of):
    metadata = metadata_of["gpt2"]()
    ids = {f"tokenizer.ggml.{name}_token_id": token for token, name in enumerate(("eot", "eom", "fim_pad"), start=10)}
    texts = set(metadata["tokenizer.ggml.tokens"][10:13])
    assert ends(add(metadata, "<fim_pad>", **ids)) == {"<|im_end|>", *texts}


def test_end_is_no_end_where_it_closes_a_part(metadata_of):
    metadata = metadata_of["gpt2"]()
    assert "<|end|>" in ends(add(metadata, "<|end|>"))
    assert "<|end|>" in ends(add(metadata, "<|end|>", "<|return|>"))
    assert "<|end|>" not in ends(add(metadata, "<|end|>", "<|return|>", "<|call|>"))
    assert "<|end|>" not in ends(add(metadata, "<|end|>", "<|flush|>", "<|calls|>"))


def test_the_structure_of_an_answer_is_shown(metadata_of):
    tokenizer = from_metadata(add(metadata_of["gpt2"](), "<|channel|>"))
    assert tokenizer.token_bytes(tokenizer.vocabulary.ids["<|channel|>"]) == b"<|channel|>"


def test_a_special_token_that_is_not_marked_as_one(metadata_of, tokens_of):
    tokenizer = from_metadata(add(metadata_of["gpt2"](), "<|eot_id|>", types=1))
    assert tokens_of(tokenizer, "<|eot_id|>", parse_special=True) == ["<|eot_id|>"]
    assert tokenizer.token_bytes(tokenizer.vocabulary.ids["<|eot_id|>"]) == b""


def test_a_token_that_merges_build_is_text(metadata_of, tokens_of):
    metadata = add(metadata_of["gpt2"](), "</", "</s", "</s>", types=1)
    metadata["tokenizer.ggml.merges"] = ["< /", "</ s", "</s >"]
    tokenizer = from_metadata(metadata)
    assert ends(metadata) == {"<|im_end|>"}
    assert tokenizer.decode([tokenizer.vocabulary.ids["</s>"]]) == "</s>"
