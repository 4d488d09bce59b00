"""Mixtures of experts in config.json, and the tensors that they have instead of a dense feed-forward."""

from __future__ import annotations

from collections.abc import Mapping

from ...engine.gguf_metadata import Value
from ..json_file import Config
from .architecture import Shape, sizes

_DENSE = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
EXPERTS: dict[str, Shape] = {
    "ffn_gate_inp.weight": ("experts", "embed"),
    "ffn_gate_exps.weight": ("experts", "expert ffn", "embed"),
    "ffn_up_exps.weight": ("experts", "expert ffn", "embed"),
    "ffn_down_exps.weight": ("experts", "embed", "expert ffn"),
}
SHARED_EXPERT: dict[str, Shape] = {
    "ffn_gate_inp_shexp.weight": ("embed",),
    "ffn_gate_shexp.weight": ("shared ffn", "embed"),
    "ffn_up_shexp.weight": ("shared ffn", "embed"),
    "ffn_down_shexp.weight": ("embed", "shared ffn"),
}


def with_experts(block: Mapping[str, Shape]) -> dict[str, Shape]:
    """The tensors of a block that has experts in the place of a dense feed-forward."""
    return {name: shape for name, shape in block.items() if name not in _DENSE} | EXPERTS


def expert_metadata(config: Config) -> dict[str, Value]:
    """The keys of experts. Raises LcpuError for a model some of whose layers are dense, which GGUF cannot tell."""
    for name, without in (("mlp_only_layers", []), ("decoder_sparse_step", 1)):
        if config.get(name) not in (None, without):
            raise config.error(name, f"is {config.get(name)!r:.80}: layers without experts among others are not "
                                     "supported; take another model")
    size = sizes(config)
    keys = {"expert_count": size["experts"], "expert_used_count": config.count("num_experts_per_tok")}
    if config.get("moe_intermediate_size") is not None:
        keys["expert_feed_forward_length"] = size["expert ffn"]
    if config.get("shared_expert_intermediate_size") is not None:
        keys["expert_shared_feed_forward_length"] = size["shared ffn"]
    return dict(keys)


def check_renormalized(config: Config, wanted: bool) -> None:
    """Raises LcpuError unless the weights of a token's experts are divided by their sum, or are not, as `wanted`: what
    engines do with an architecture does not depend on its file."""
    if config.flag("norm_topk_prob") != wanted:
        raise config.error("norm_topk_prob", f"is {str(not wanted).lower()}, which engines do not compute with models "
                                             "of this architecture; take another model")
