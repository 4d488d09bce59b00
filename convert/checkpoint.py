"""A Hugging Face checkpoint in a folder: its config.json and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..kernels.errors import LcpuError
from .architectures import complete
from .json_file import Config, read_json
from .packings import packing_of
from .safetensors_file import open_safetensors
from .source import SourceTensor
from .torch_file import open_torch

# What weights are in, best first: a single file, or the index of several.
WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
INDEXES = tuple(index for _, index in WEIGHTS)

# Files beside a config.json that does not say itself how the weights are quantized: the "quant_method" that they mean.
QUANTIZERS = {"quantize_config.json": "gptq", "quant_config.json": "awq", "hf_quant_config.json": "modelopt"}


class Checkpoint:
    """An open checkpoint. A context manager. Use `open_checkpoint`."""

    def __init__(self, folder: Path, config: Config, tensors: Mapping[str, SourceTensor], on_close: ExitStack) -> None:
        self.folder = folder
        self.config = config
        self.tensors = tensors
        self._on_close = on_close

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._on_close.close()


def read_config(folder: Path) -> Config:
    """What config.json and the quantizer's file beside it say.

    Raises LcpuError if there is none, saying what else the folder may be, and for weights in a packing that lcpu cannot
    read.
    """
    path = folder / "config.json"
    if not path.exists():
        names = [file.name for file in folder.iterdir()]
        if "adapter_config.json" in names:
            raise LcpuError(f"{folder}: is a LoRA adapter, not a model: merge it into its model first")
        if any(name.endswith(".gguf") for name in names):
            raise LcpuError(f"{folder}: has GGUF files, which need no conversion: run one with `lcpu run -m`")
    values = read_json(path)
    beside = next((name for name in QUANTIZERS if (folder / name).exists()), None)
    if beside is not None and values.get("quantization_config") is None:
        settings = read_json(folder / beside)
        inner = settings.get("quantization")  # ModelOpt's
        settings = inner if isinstance(inner, dict) else settings
        values["quantization_config"] = {"quant_method": QUANTIZERS[beside]} | settings
    config = Config(path, complete(values))
    packing_of(config)
    return config


def open_checkpoint(folder: Path, tensors: Mapping[str, SourceTensor] | None = None) -> Checkpoint:
    """The checkpoint in a folder; `tensors`, if given, describe the weights that are not there.

    Raises LcpuError for files that are missing or damaged.
    """
    config = read_config(folder)
    with ExitStack() as on_error:
        if tensors is None:
            tensors = _open_weights(folder, on_error)
        return Checkpoint(folder, config, tensors, on_error.pop_all())


def _open_weights(folder: Path, on_error: ExitStack) -> dict[str, SourceTensor]:
    names = {file.name for file in folder.iterdir()}
    tensors: dict[str, SourceTensor] = {}
    for name in weight_files(str(folder), names, lambda index: read_json(folder / index)):
        open_file = open_safetensors if name.endswith(".safetensors") else open_torch
        file, found = open_file(folder / name)
        on_error.callback(file.close)
        twice = sorted(found.keys() & tensors.keys())
        if twice:
            raise LcpuError(f"{folder / name}: tensor {twice[0][:80]!r} is in another file as well: damaged")
        tensors |= found
    return tensors


def weight_files(source: str, names: Collection[str], read_index: Callable[[str], Mapping[str, Any]]) -> list[str]:
    """Which of the files of a checkpoint hold its weights. `source` names it in errors."""
    for single, index in WEIGHTS:
        if single in names:
            return [single]
        if index in names:
            weight_map = read_index(index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise LcpuError(f"{source}: {index} has no weight_map: damaged; download it again")
            files = sorted({str(name) for name in weight_map.values()})
            if any(Path(name).name != name or not name.endswith((".safetensors", ".bin")) for name in files):
                raise LcpuError(f"{source}: {index} names files that cannot be parts of it: refused")
            return files
    raise LcpuError(f"{source}: has no weights: neither model.safetensors nor pytorch_model.bin, nor an index of "
                    "parts; download the rest of it")
