"""Special tokens: which ones end a generation, and how they are found in a text.

The lists of texts are llama.cpp's (src/llama-vocab.cpp): files often do not mark these tokens, so their text decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_END = """
    <|eot_id|> <|eom_id|> <|im_end|> <|end|> <|return|> <|call|> <|calls|> <|flush|> <end_of_turn> <turn|>
    <|tool_response> <|endoftext|> <|end_of_text|> <end_of_utterance> <｜end▁of▁sentence｜> </s> <eos>
    <EOT> _<EOT> [EOT] [EOS] [e~[
"""
END_TEXTS = frozenset(_END.split())

# Fill-in-the-middle tokens that end a generation: padding, the next repository, the next file.
FILL_IN_END_TEXTS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
_FILL_IN = """
    <|fim_prefix|> <fim-prefix> <fim_prefix> <|code_prefix|> <|prefix|> <｜fim▁begin｜> <PRE> ▁<PRE>
    <|fim_suffix|> <fim-suffix> <fim_suffix> <|code_suffix|> <|suffix|> <｜fim▁hole｜> <SUF> ▁<SUF>
    <|fim_middle|> <fim-middle> <fim_middle> <|code_middle|> <|middle|> <｜fim▁end｜> <MID> ▁<MID>
"""
CONTROL_TEXTS = END_TEXTS | frozenset(_FILL_IN.split()).union(*FILL_IN_END_TEXTS.values())

# gpt-oss writes the structure of an answer with these: they are text to whoever reads it.
SHOWN_TEXTS = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"})

_C_WHITE_SPACE = " \t\n\v\f\r"


def end_ids(ids: Mapping[str, int], named: Mapping[str, int | None]) -> frozenset[int]:
    """The tokens that end a generation.

    `ids` maps the text of each token to its id; `named` holds what the file's keys say, by name: "eos", "eot", "eom",
    "fim_pad", "fim_rep", "fim_sep".
    """
    found = {ids[text] for text in END_TEXTS if text in ids}
    found |= {token for token in named.values() if token is not None}
    for name, texts in FILL_IN_END_TEXTS.items():
        if named.get(name) is None:
            found |= {ids[text] for text in texts if text in ids}
    return frozenset(found - part_separators(ids))


def part_separators(ids: Mapping[str, int]) -> set[int]:
    """`<|end|>` where it ends a part of an answer, not the answer: gpt-oss and Solar, told by the tokens they have."""
    is_gpt_oss = "<|return|>" in ids and ("<|call|>" in ids or "<|calls|>" in ids)
    is_solar = "<|flush|>" in ids and ("<|call|>" in ids or "<|calls|>" in ids)
    return {ids["<|end|>"]} if "<|end|>" in ids and (is_gpt_oss or is_solar) else set()


def strips_after(ids: Mapping[str, int], special: Iterable[int], model_name: str) -> frozenset[int]:
    """The special tokens that take the white space after them along.

    GGUF has no key for it; like llama.cpp, this knows that it is so with Phi-3, by the name of the model.
    """
    if not any(name in model_name.lower() for name in ("phi-3", "phi3")):
        return frozenset()
    keep = {ids.get(text) for text in ("<unk>", "<s>", "<|endoftext|>")}
    return frozenset(token for token in special if token not in keep)


def partition(text: str, tokens: Iterable[tuple[str, int]], strips: frozenset[int]) -> list[str | int]:
    """Cut `text` at special tokens: a list of token ids and of the texts between them, none of them empty.

    `tokens` are (text, id), longest first: as in llama.cpp, a longer one is found in all of the text before a shorter
    one is looked for.
    """
    parts: list[str | int] = [text] if text else []
    for token_text, token in tokens:
        if token_text not in text:
            continue
        cut: list[str | int] = []
        for part in parts:
            if isinstance(part, int):
                cut.append(part)
                continue
            first, *others = part.split(token_text)
            cut.append(first)
            for other in others:
                cut += [token, other.lstrip(_C_WHITE_SPACE) if token in strips else other]
        parts = [part for part in cut if part != ""]
    return parts
