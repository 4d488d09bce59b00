"""Which type each tensor of a model is quantized to: llama.cpp's mixtures and rules (src/llama-quant.cpp).

Types are GGUF's names, such as "Q4_K".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..engine.gguf_file import TensorInfo
from ..engine.gguf_metadata import Value
from ..engine.gguf_types import TENSOR_TYPES
from ..kernels.errors import LcpuError
from .layer_rules import (
    FALCON,
    Rules,
    every,
    first_eighth,
    first_four,
    first_sixteenth,
    first_two,
    middle,
    more_bits,
    type_by,
)

LARGEST_FLOAT32 = 3.4028234663852886e38
LARGEST_FLOAT16 = 65519.0  # that is rounded to a finite one
_LARGEST = {"NVFP4": 2688.0}  # of other types: 6 * 448
TYPE_IDS = {tensor_type.name: type_id for type_id, tensor_type in TENSOR_TYPES.items()}
KEEP = "keep"  # in the place of a type: the one that the tensor has
_KEEP_HALF = "keep half"  # the same, but F16 for F32


@dataclass(frozen=True)
class Mixture:
    """What a name such as "q4_k_m" stands for."""

    base: str  # the type of most matrices
    file_type: int | None  # general.file_type; None: as it was
    output: str  # the type of the output layer, or of the embedding that serves as one
    embedding: str = ""  # the type of another embedding, if not the base
    better: Rules = field(default_factory=dict)
    experts: str = ""  # the type of stacks of experts, if not the base
    with_imatrix: Rules | None = None  # `better`, if there is one
    of_eight: Rules | None = None  # `better`, if there are 8 experts
    shared_values: str = ""  # the type of attn_v where four heads or more share it, if not what it is otherwise
    few_bits: bool = False  # whether the rules for experts are those of types of 1 and 2 bits


_M_LAYERS: Rules = {"attn_v": (more_bits, "Q6_K"), "ffn_down": (more_bits, "Q6_K")}
_S_LAYERS: Rules = {"attn_v": (first_four, "Q5_K"), "ffn_down": (first_eighth, "Q5_K")}
_Q2_LAYERS: Rules = dict.fromkeys(("attn_v", "attn_output", "ffn_down"), (every, "Q3_K"))
_Q3_M_LAYERS: Rules = {"attn_v": (first_two, "Q5_K", "Q4_K"), "attn_output": (every, "Q4_K"),
                         "ffn_down": (first_sixteenth, "Q5_K", "Q4_K")}
_Q3_L_LAYERS: Rules = dict.fromkeys(("attn_v", "attn_output", "ffn_down"), (every, "Q5_K"))
_EIGHT: Rules = {"attn_output": (every, "Q5_K")}
_IQ4_LAYERS: Rules = {"ffn_down": (first_eighth, "Q5_K")}
_IQ3_M_LAYERS: Rules = {"attn_v": (every, "Q4_K"), "ffn_down": (first_eighth, "Q4_K"), "attn_output": (every, "Q4_K")}
_IQ3_XS_LAYERS: Rules = {"attn_q": (every, "IQ3_XXS"), "attn_k": (every, "IQ3_XXS"),
                          "ffn_gate": (middle, "IQ3_XXS"), "ffn_up": (middle, "IQ3_XXS")}
_IQ3_XXS_LAYERS: Rules = {"attn_q": (every, "IQ2_S"), "attn_k": (every, "IQ2_S"), "attn_output": (every, "IQ3_S")}
_IQ3_XXS_ALONE = _IQ3_XXS_LAYERS | {"attn_v": (every, "IQ3_S"), "ffn_down": (first_eighth, "Q4_K", "Q3_K")}
_IQ2_LAYERS: Rules = {"attn_v": (every, "IQ3_S"), "ffn_down": (first_eighth, "IQ3_S"), "attn_output": (every, "IQ3_S")}
_IQ2_X_LAYERS: Rules = {"attn_v": (every, "Q2_K"), "ffn_down": (first_eighth, "Q2_K")}
_IQ1_LAYERS = _IQ2_X_LAYERS | {"attn_output": (every, "IQ2_XXS")}

MIXTURES = {
    "f32": Mixture("F32", 0, "F32"),
    "f16": Mixture("F16", 1, "F16"),
    "bf16": Mixture("BF16", 32, "BF16"),
    "q8_0": Mixture("Q8_0", 7, "Q8_0"),
    "q6_k": Mixture("Q6_K", 18, "Q6_K"),
    "q5_k_m": Mixture("Q5_K", 17, "Q6_K", better=_M_LAYERS),
    "q5_k_s": Mixture("Q5_K", 16, "Q6_K"),
    "q5_1": Mixture("Q5_1", 9, "Q6_K"),
    "q5_0": Mixture("Q5_0", 8, "Q6_K", with_imatrix={"ffn_down": (first_eighth, "Q5_1")}),
    "q4_k_m": Mixture("Q4_K", 15, "Q6_K", better=_M_LAYERS),
    "q4_k_s": Mixture("Q4_K", 14, "Q6_K", better=_S_LAYERS),
    "q4_1": Mixture("Q4_1", 3, "Q6_K"),
    "q4_0": Mixture("Q4_0", 2, "Q6_K", with_imatrix={"ffn_down": (first_eighth, "Q4_1")}),
    "iq4_nl": Mixture("IQ4_NL", 25, "Q6_K", better=_IQ4_LAYERS, with_imatrix={}, shared_values="Q5_K"),
    "iq4_xs": Mixture("IQ4_XS", 30, "Q6_K", better=_IQ4_LAYERS, with_imatrix={}, shared_values="Q5_K"),
    "q3_k_l": Mixture("Q3_K", 13, "Q6_K", better=_Q3_L_LAYERS, of_eight={"ffn_down": (every, "Q5_K")}),
    "q3_k_m": Mixture("Q3_K", 12, "Q6_K", better=_Q3_M_LAYERS, of_eight=_Q3_M_LAYERS | _EIGHT),
    "q3_k_s": Mixture("Q3_K", 11, "Q6_K", of_eight=_EIGHT),
    "q2_k": Mixture("Q2_K", 10, "Q6_K", better=_Q2_LAYERS, of_eight=_Q2_LAYERS | _EIGHT, shared_values="Q4_K"),
    "q2_k_s": Mixture("Q2_K", 21, "Q6_K", better={"ffn_down": (first_eighth, "Q4_K")}, shared_values="Q4_K"),
    "iq3_m": Mixture("IQ3_S", 27, "Q6_K", better=_IQ3_M_LAYERS,
                     of_eight=_IQ3_M_LAYERS | {"ffn_down": (more_bits, "Q4_K")}),
    "iq3_s": Mixture("IQ3_S", 26, "Q6_K", shared_values="Q4_K"),
    "iq3_xs": Mixture("IQ3_S", 22, "Q6_K", better=_IQ3_XS_LAYERS, shared_values="Q4_K"),
    "iq3_xxs": Mixture("IQ3_XXS", 23, "Q5_K", "IQ3_S", better=_IQ3_XXS_ALONE, with_imatrix=_IQ3_XXS_LAYERS,
                       shared_values="Q4_K"),
    "iq2_m": Mixture("IQ2_S", 29, "Q5_K", "IQ3_S", better=_IQ2_LAYERS, shared_values="Q4_K", few_bits=True),
    "iq2_s": Mixture("IQ2_XS", 28, "Q5_K", "IQ3_S", better=_IQ2_LAYERS, shared_values="Q4_K", few_bits=True),
    "iq2_xs": Mixture("IQ2_XS", 20, "Q5_K", "Q2_K", better=_IQ2_X_LAYERS, shared_values="Q4_K", few_bits=True),
    "iq2_xxs": Mixture("IQ2_XXS", 19, "Q5_K", "Q2_K", better=_IQ2_X_LAYERS, shared_values="Q4_K", few_bits=True),
    "iq1_m": Mixture("IQ1_M", 31, "Q5_K", "Q2_K", better=_IQ1_LAYERS, shared_values="Q4_K", few_bits=True),
    "iq1_s": Mixture("IQ1_S", 24, "Q5_K", "Q2_K", better=_IQ1_LAYERS, shared_values="Q4_K", few_bits=True),
    "mxfp4": Mixture("MXFP4", 38, "Q8_0"),
    "mxfp4_moe": Mixture("Q8_0", 38, "Q8_0", experts="MXFP4"),
    "nvfp4": Mixture("NVFP4", 39, "Q8_0"),
    "q2_0": Mixture("Q2_0", 41, "Q6_K", "Q4_K"),
    "q1_0": Mixture("Q1_0", 40, "Q6_K"),
    "tq2_0": Mixture("TQ2_0", 37, "Q6_K", "Q4_K"),
    "tq1_0": Mixture("TQ1_0", 36, "Q6_K", "Q4_K"),
    "i2_s": Mixture("I2_S", 40, _KEEP_HALF, _KEEP_HALF),  # bitnet.cpp's number and rules
    "copy": Mixture(KEEP, None, KEEP),
}
ALIASES = {
    "q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m",  # llama.cpp has them too
    "nf4": "iq4_nl", "fp4": "mxfp4",  # the names by which others know such levels
}  # fmt: skip

_WITH_EXPERTS = ("Q4_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ3_XXS")  # bases that have a larger attn_output then
_UNMIXED = (KEEP, "F32", "F16", "BF16")  # a base that every matrix gets

# For rows that are not whole blocks. What is not listed, or does not fit either, becomes F16.
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL", "NVFP4": "MXFP4",
              "TQ1_0": "Q4_0", "TQ2_0": "Q4_0", "Q1_0": "Q4_0", "Q2_0": "Q4_0", "Q2_K": "Q4_0", "Q3_K": "Q4_0"}
_FALLBACKS |= dict.fromkeys(("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"), "IQ4_NL")

# Matrices that stay as they are: small, or sensitive, or none of a matmul.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj|ssm_conv1d"
    r"|shortconv\.conv\.weight|indexer\.[kq]_proj\.weight|attn_rel_b\.weight|sam\.(pos_embd|neck\.|net_)"
    r"|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight|^(position_embd|token_types)\.weight"
    r"|\.(position_embd|rel_pos|patch_embd|patch_merger)|a\.rvq\.codebook|mm\.a\.code_embd"
)
_ROLES = {
    "output": re.compile(r"^output\.weight$"),
    "token_embd": re.compile(r"^(per_layer_)?token_embd\.weight$"),
    "attn_v": re.compile(r"attn_(v|qkv|kv_b)\.weight"),
    "attn_q": re.compile(r"attn_q\.weight"),
    "attn_k": re.compile(r"attn_k\.weight"),
    "attn_output": re.compile(r"attn_output\.weight"),
    "ffn_up": re.compile(r"ffn_up"),
    "ffn_gate": re.compile(r"ffn_gate"),
    "ffn_down": re.compile(r"ffn_down"),
}


@dataclass(frozen=True)
class Overrides:
    """What the user wants otherwise."""

    pure: bool = False  # the base type for all that is quantized
    output: str = ""
    embedding: str = ""
    patterns: tuple[tuple[re.Pattern[str], str], ...] = ()  # a name in which the first is found gets the second


def choose_types(
    tensors: Iterable[TensorInfo], metadata: Mapping[str, Value], mixture: Mixture, overrides: Overrides,
    imatrix: bool = False,
) -> tuple[dict[str, int], list[str]]:
    """The type id of every tensor by name, and the names of those whose rows did not fit the type that was wanted.

    imatrix: whether there is an importance matrix. Raises LcpuError for a tensor that cannot become I2_S.
    """
    if imatrix and mixture.with_imatrix is not None:
        mixture = replace(mixture, better=mixture.with_imatrix)
    if metadata.get("general.architecture") == "falcon":
        mixture = _of_falcon(mixture)
    tensors = list(tensors)
    roles = {info.name: role_of(info.name) for info in tensors}
    weights = sorted((name for name in roles if name.endswith(".weight")), key=lambda name: (layer_of(name), name))
    values, downs = ([name for name in weights if roles[name] == role] for role in ("attn_v", "ffn_down"))
    tied = "output" not in roles.values()
    types, misfits = {}, []
    for info in tensors:
        role = roles[info.name]
        if role == "token_embd" and tied and not overrides.embedding:
            role = "output"
        if not _quantizable(info):
            wanted = KEEP
        elif chosen := _overridden(info.name, role, overrides):
            wanted = chosen
        elif overrides.pure or mixture.base in _UNMIXED:
            wanted = mixture.base
        elif mixture.experts and sum(size > 1 for size in info.shape) > 2:
            wanted = mixture.experts
        elif role == "attn_v":
            wanted = _mixed(mixture, metadata, role, values.index(info.name), len(values))
        else:  # types of few bits count tensors, of which a layer may have two
            index = downs.index(info.name) if mixture.few_bits and role == "ffn_down" else layer_of(info.name)
            wanted = _mixed(mixture, metadata, role, index, _number(metadata, "block_count"))
        types[info.name] = TYPE_IDS[_fitting(info, wanted, role)]
        if wanted in TYPE_IDS and TYPE_IDS[wanted] != types[info.name]:
            misfits.append(info.name)
    return types, misfits


def _of_falcon(mixture: Mixture) -> Mixture:
    better = {role: rule for role, rule in mixture.better.items() if role != "attn_output" or mixture.few_bits}
    output = mixture.output if mixture.output in (KEEP, _KEEP_HALF) else "Q8_0"
    return replace(mixture, better=better | FALCON.get(mixture.file_type or 0, {}), output=output)


def role_of(name: str) -> str:
    """Such as "ffn_down"; "" for a tensor that has none of the roles that mixtures know."""
    return next((role for role, pattern in _ROLES.items() if pattern.search(name)), "")


def layer_of(name: str) -> int:
    """-1 for a tensor outside of the layers."""
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _number(metadata: Mapping[str, Value], key: str) -> int:
    """Of the first layer, where layers differ."""
    value = metadata.get(f"{metadata.get('general.architecture')}.{key}")
    value = value[0] if isinstance(value, np.ndarray) and value.size else value
    return int(value) if isinstance(value, (int, np.integer)) else 0


def _quantizable(info: TensorInfo) -> bool:
    """Whether it is a matrix, or a stack of them, whose type may change. Integers stay."""
    whole = info.type_name in ("I8", "I16", "I32", "I64")
    matrix = any(size > 1 for size in info.shape[:-1])
    return matrix and not whole and info.name.endswith("weight") and not _KEPT.search(info.name)


def _overridden(name: str, role: str, overrides: Overrides) -> str:
    if role == "token_embd" and overrides.embedding:
        return overrides.embedding
    if role == "output" and overrides.output:
        return overrides.output
    return next((kind for pattern, kind in overrides.patterns if pattern.search(name)), "")


def is_overridden(name: str, has_output: bool, overrides: Overrides) -> bool:
    """Whether the user names a type for this tensor. has_output: whether the embedding is not the output layer too."""
    role = role_of(name)
    role = "output" if role == "token_embd" and not has_output and not overrides.embedding else role
    return bool(_overridden(name, role, overrides))


def free_tensors(tensors: Iterable[TensorInfo], overrides: Overrides) -> list[str]:
    """Names of the tensors whose types may change, and for which the user names none."""
    tensors = list(tensors)
    has_output = any(role_of(info.name) == "output" for info in tensors)
    return [info.name for info in tensors
            if _quantizable(info) and not is_overridden(info.name, has_output, overrides)]


def _mixed(mixture: Mixture, metadata: Mapping[str, Value], role: str, index: int, count: int) -> str:
    """The type that a mixture has for a role in layer `index` of `count`."""
    if role == "output":
        return mixture.output
    if role == "token_embd":
        return mixture.embedding or mixture.base
    experts = _number(metadata, "expert_count")
    heads, kv_heads = (_number(metadata, f"attention.{key}") for key in ("head_count", "head_count_kv"))
    rules = mixture.of_eight if experts == 8 and mixture.of_eight is not None else mixture.better
    kind = type_by(rules.get(role, ()), mixture.base, index, count)
    many_experts = mixture.few_bits and experts >= 4
    if role == "attn_v" and mixture.shared_values and (heads >= 4 * kv_heads > 0 or many_experts):
        kind = mixture.shared_values
    if experts == 8:  # then these are a small part of the model
        if role in ("attn_v", "attn_k"):
            return "Q4_K" if mixture.few_bits else "Q8_0"
        return "Q5_K" if role == "attn_output" and (mixture.few_bits or mixture.base in _WITH_EXPERTS) else kind
    seventy = _number(metadata, "block_count") == 80 and (
        heads != kv_heads if metadata.get("general.architecture") == "llama" else
        metadata.get("general.architecture") == "qwen2")  # billion parameters, or 72
    return "Q5_K" if seventy and role == "attn_v" and kind in ("Q3_K", "Q4_K") and not mixture.few_bits else kind


def _fitting(info: TensorInfo, wanted: str, role: str) -> str:
    """The type itself, or one whose blocks the rows are made of."""
    if wanted == KEEP or (wanted == _KEEP_HALF and info.type_name != "F32"):
        return info.type_name
    kind = "F16" if wanted == _KEEP_HALF else wanted
    k = info.shape[-1]
    if kind == "I2_S" and k % 128:
        raise LcpuError(f"tensor '{info.name}' has rows of {k} values, and I2_S needs a multiple of 128: "
                        f"give it another type with --tensor-type '{re.escape(info.name)}=f16'")
    fallback = "Q8_0" if role == "output" and kind == "Q5_K" else _FALLBACKS.get(kind, "F16")
    for candidate in (kind, fallback, "F16"):
        if k % TENSOR_TYPES[TYPE_IDS[candidate]].block_values == 0:
            return candidate
    raise AssertionError("every row is whole blocks of F16")


def largest_magnitude(type_id: int) -> float:
    """What a type takes at most: above, float16 values and scales round to infinity."""
    name = TENSOR_TYPES[type_id].name
    return LARGEST_FLOAT32 if name in ("F32", "BF16", "MXFP4") else _LARGEST.get(name, LARGEST_FLOAT16)
