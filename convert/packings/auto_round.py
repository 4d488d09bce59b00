"""AutoRound's own checkpoints, "quant_method": "auto-round": those of GPTQ or AWQ, as "packing_format" says.

Source: auto_round/inference/backend.py. Its exports for AutoGPTQ and AutoAWQ are checkpoints of these.
"""

from __future__ import annotations

from ..json_file import Config
from .awq import read_awq
from .gptq import ENDINGS, is_packed, read_gptq
from .integers import Integers
from .packing import Packing, Parts

_LESS_ONE = ("auto_round:auto_gptq", "auto_round:gptq", "auto")  # GPTQ with zeros stored less 1
_AS_IS = ("auto_round", "auto_round:gptqmodel")  # GPTQ with zeros as they are
_AWQ = ("auto_round:auto_awq", "auto_round:awq")


def _format(settings: Config) -> str:
    return str(settings.get("packing_format") or settings.get("backend") or "auto")


def _check(settings: Config) -> None:
    kinds = (*_LESS_ONE, *_AS_IS, *_AWQ)
    if _format(settings) not in kinds:
        raise settings.error("quantization_config", f"has the packing_format {_format(settings)[:60]!r}; of AutoRound, "
                             f"lcpu reads {', '.join(kind for kind in kinds if kind != 'auto')}")


def _read(parts: Parts, shape: tuple[int, ...]) -> Integers:
    form = _format(parts.settings)
    return read_awq(parts, shape) if form in _AWQ else read_gptq(parts, shape, zeros_less_one=form in _LESS_ONE)


AUTO_ROUND = Packing("AutoRound", ENDINGS, is_packed, _read, _check)
