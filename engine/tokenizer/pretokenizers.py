"""Pre-tokenizers: how a byte-level BPE vocabulary cuts text into words before it merges.

A GGUF file names its own in `tokenizer.ggml.pre`. The names, the flags and which expressions go with which name are
llama.cpp's (src/llama-vocab.cpp), and "falcon_e" is bitnet.cpp's (utils/convert-hf-to-gguf-bitnet.py). Where llama.cpp
adapts an expression to its own regex engine, the table holds the one of the model's tokenizer.json: it is what the
model was trained with, and Oniguruma takes it as it is.

Expressions apply in order: each cuts every piece the ones before it left, and what it does not match stays a piece too.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...kernels.errors import LcpuError


@dataclass(frozen=True)
class Pretokenizer:
    """Regular expressions (Oniguruma syntax), and what llama.cpp ties to the same name.

    `ignore_merges`: a word that is a token is taken whole, without merging. `add_bos`: the default when the file does
    not say whether BOS goes before a text.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _cl100k(digits: str, contractions: str = _CONTRACTIONS + "|", spaces: str = _SPACES) -> str:
    """The expression of OpenAI's cl100k and its kin, which differ in how they group digits."""
    return contractions + r"[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + spaces


def _o200k(digits: str, contractions: str = _CONTRACTIONS + "?") -> str:
    """The expression of OpenAI's o200k and its kin: a word also ends where a capital follows a small letter."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    start = r"[^\r\n\p{L}\p{N}]?"
    words = f"{start}{upper}*{lower}+{contractions}|{start}{upper}+{lower}*{contractions}"
    return words + "|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES


def _character_class(ranges: str) -> str:
    """A regex class of code points from blank-separated hexadecimal values and ranges."""
    ends = (item.split("-") for item in ranges.split())
    return "[" + "".join("-".join(rf"\x{{{end}}}" for end in pair) for pair in ends) + "]"


_CJK = _character_class("4E00-9FA5 0800-4E00 AC00-D7FF")
_CJK_AND_KANA = _character_class("4E00-9FA5 3040-309F 30A0-30FF")

# The letters of deepseek-llm: most of the cased scripts, as of the Unicode version that its tokenizer was made with.
_DEEPSEEK_LETTERS = _character_class(
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C 38E-3A1 "
    "3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A "
    "1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 "
    "1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 "
    "212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D "
    "A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 "
    "104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"
)
_DEEPSEEK_PUNCTUATION = _character_class("21-2F 3A-7E FF01-FF0F FF1A-FF5E 2018-201F 3000-3002")

_DEEPSEEK_V3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
)
_DEEPSEEK_V3 = Pretokenizer((r"\p{N}{1,3}", _CJK_AND_KANA + "+", _DEEPSEEK_V3_WORDS + r"[\r\n]*|" + _SPACES))

_AFMOE_SCRIPTS = _character_class(
    "4E00-9FFF 3400-4DBF F900-FAFF 3040-309F 30A0-30FF FF65-FF9F 2F00-2FDF 0E40-0E7F 0E80-0EFF 1780-17FF 1000-109F "
    "AA60-AA7F A9E0-A9FF AC00-D7AF 1100-11FF"
)

_KIMI_K2 = "|".join((
    r"\p{Han}+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    + _CONTRACTIONS + "?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    + _CONTRACTIONS + "?",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES,
))  # fmt: skip

# Words that end at a space, a bar or a punctuation mark: "( | . , ! ?", and those of Chinese, Devanagari, Urdu, Arabic.
_BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{0964}\x{06D4}\x{060C})]+"

_YOUTU_SCRIPTS = "|".join(
    _character_class(ranges) + "+"
    for ranges in (
        "AC00-D7A3 3131-318E",
        "FF01 2026 201C 201D 2018 2019 2014 FF1A FF1B FF0C 3001-303F FE30-FE4F",
        "3105-312F",
        "4E00-9FA5 3040-309F 30A0-30FF",
    )
)

_JAIS2_SPACES = r"\s*[\r\n]+|" + "".join(rf"\s{{{n}}}(?!\S)|" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"\s"

# Threes of digits, counted from the end of a number at which a word ends too. The original expression,
# \d{1,3}(?=(?:\d{3})*\b), reads all digits that follow for each three: quadratic time. Instead, these cut out the
# number, then the one or two digits in front; the expression that comes after them cuts the rest into threes.
_DIGITS_FROM_THE_END = (r"(?<!\d)\d++\b", r"\A\d{1,2}(?=(?:\d{3})+\z)")

_TABLE: tuple[tuple[str, Pretokenizer], ...] = (
    ("default", Pretokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
    (
        "gpt-2 phi-2 mpt olmo jais gigachat a.x-4.0 mellum exaone4 trillion granite-docling modern-bert "
        "jina-es jina-de jina-v2-es jina-v2-de",
        Pretokenizer((_GPT2,)),
    ),
    (
        "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
        Pretokenizer((r"\p{N}", _GPT2)),
    ),
    ("falcon", Pretokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    (
        "llama3 llama-v3 llama-bpe falcon3 falcon_e falcon-h1 pixtral midm-2.0 lfm2 "
        "jina-v5-nano",
        Pretokenizer((_cl100k(r"\p{N}{1,3}"),), ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe chatglm-bpe", Pretokenizer((_cl100k(r"\p{N}{1,3}"),))),
    ("glm4 glm5", Pretokenizer((_cl100k(r"\p{N}{1,3}"),), ignore_merges=True)),
    ("jais-2", Pretokenizer((_cl100k(r"\p{N}{1,3}", spaces=_JAIS2_SPACES),))),
    ("minicpm5", Pretokenizer((r"\p{N}{1,3}", _cl100k(r"\p{N}+")), ignore_merges=True)),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        Pretokenizer((_cl100k(r"\p{N}"),)),
    ),
    (
        "qwen35",
        Pretokenizer(
            (_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _SPACES,)
        ),
    ),
    ("laguna", Pretokenizer((r"[^\n]+|[\n]+", _cl100k(r"\p{N}")))),
    ("ufakzeka", Pretokenizer((_cl100k(r"\p{N}", contractions=""),))),
    (
        "seed-coder",
        Pretokenizer((_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|" + _SPACES,)),
    ),
    (
        "bailingmoe bailingmoe2 llada-moe",
        Pretokenizer(
            (
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
                r"|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    (
        "exaone-moe",
        Pretokenizer(
            (
                _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    ("tekken", Pretokenizer((_o200k(r"\p{N}", contractions=""),), ignore_merges=True, add_bos=True)),
    ("gpt-4o llama4 kanana2 talkie minimax-m2", Pretokenizer((_o200k(r"\p{N}{1,3}"),))),
    ("granite-embed-multi-97m", Pretokenizer((_o200k(r"\p{N}{1,3}"),), ignore_merges=True)),
    ("kimi-k2", Pretokenizer((_KIMI_K2,))),
    ("tiny_aya cohere2moe", Pretokenizer((*_DIGITS_FROM_THE_END, _o200k(r"\p{N}{1,3}")))),
    ("youtu", Pretokenizer((_YOUTU_SCRIPTS, _o200k(r"\p{N}")), ignore_merges=True)),
    (
        "deepseek-llm",
        Pretokenizer(
            (
                r"[\r\n]",
                r"\s?" + _DEEPSEEK_LETTERS + "+",
                r"\s?" + _DEEPSEEK_PUNCTUATION + "+",
                r"(?<!\s)\s++$",  # \s+$ would try each space of a long run anew
                _CJK + "+",
                r"\p{N}+",
            )
        ),
    ),
    ("deepseek-coder", Pretokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK + "+", r"\p{N}"))),
    ("deepseek-v3 hunyuan-dense joyai-llm hy_v4", _DEEPSEEK_V3),
    (
        "afmoe",
        Pretokenizer(
            (r"\p{N}+", r"\A\p{N}{1,2}(?=(?:\p{N}{3})+\z)", r"\p{N}{1,3}", _AFMOE_SCRIPTS + "+",
             _DEEPSEEK_V3.patterns[2]),
        ),
    ),
    (
        "spark2_5",
        Pretokenizer(
            (*_DEEPSEEK_V3.patterns[:2], _DEEPSEEK_V3_WORDS + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"),
        ),
    ),
    ("bloom poro-chat gpt3-finnish", Pretokenizer((_BLOOM,))),
    ("viking", Pretokenizer((_BLOOM, r"\p{N}"))),
    (
        "chameleon",
        Pretokenizer(
            (
                "<sentinel:[0-9]+>",
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                r"([\t\n]|    |  )",
                r"\p{N}",
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
    ),
)

PRETOKENIZERS: dict[str, Pretokenizer] = {name: entry for names, entry in _TABLE for name in names.split()}


# What llama.cpp has besides, and why lcpu does not.
_CHARACTERS = "merges characters, not bytes"
_ENCODER = "puts a token behind every text, for models that make embeddings"
REFUSED = {
    "granite-embed-multi-311m": _CHARACTERS, "sarvam-moe": _CHARACTERS, "whitespace": _CHARACTERS,
    "jina-v1-en": _ENCODER, "jina-v2-code": _ENCODER, "roberta-bpe": _ENCODER,
    "superbpe": "cuts long numbers in a time that grows with the square of their length",
}  # fmt: skip


CHARACTERS = "gemma4"  # merges characters: see `characters`


def find(name: str) -> Pretokenizer:
    """The pre-tokenizer that a file calls `name`. Raises LcpuError if there is none of that name."""
    if name in PRETOKENIZERS:
        return PRETOKENIZERS[name]
    if name in REFUSED:
        raise LcpuError(f"tokenizer.ggml.pre = {name!r} {REFUSED[name]}, which lcpu does not do: take another model")
    raise LcpuError(
        f"tokenizer.ggml.pre = {name!r} is a pre-tokenizer lcpu does not have; use a model with one of: "
        + ", ".join(sorted(PRETOKENIZERS))
    )
