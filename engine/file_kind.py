"""What a GGUF file is, if it is no language model: people give adapters, projectors and the like by mistake."""

from __future__ import annotations

from ..kernels.errors import LcpuError
from .gguf_file import GGUFFile

# By `general.type` and by `general.architecture` (gguf-py/gguf/constants.py); older files have only the latter.
_ADAPTER = ("a LoRA adapter, not a whole model: merge it into its base model (llama.cpp's llama-export-lora does that) "
            "and give the merged file")
_PROJECTOR = ("a projector for images or sound (mmproj), not a language model: give the file of the language model; "
              "lcpu reads text only")
_IMATRIX = "an importance matrix (imatrix), which is an aid for quantizing, not a model: give the model file"
_HESSIAN = "sums of products (a Hessian), which is an aid for quantizing, not a model: give the model file"
_CONTROL_VECTOR = "a control vector, not a model: give the file of the model that it is for"
_TYPES = {"adapter": _ADAPTER, "mmproj": _PROJECTOR, "clip-vision": _PROJECTOR, "imatrix": _IMATRIX,
          "hessian": _HESSIAN, "controlvector": _CONTROL_VECTOR}
_ARCHITECTURES = {"clip": _PROJECTOR, "controlvector": _CONTROL_VECTOR}


def check_is_model(file: GGUFFile) -> None:
    """Raises LcpuError, which says what the file is and what to give instead, for one that is no whole model."""
    metadata = file.metadata
    kind = _TYPES.get(str(metadata.get("general.type")))
    kind = kind or _ARCHITECTURES.get(str(metadata.get("general.architecture")))
    if kind is None and "adapter.type" in metadata:
        kind = _ADAPTER
    if kind is None and not file.tensors:
        kind = "only a vocabulary, without the weights of a model: give the model file"
    if kind is not None:
        raise LcpuError(f"{file.path}: is {kind}")
