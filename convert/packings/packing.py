"""What a packing is: which tensors of a checkpoint make one weight, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...kernels.errors import LcpuError
from ..json_file import Config
from ..source import FLOATS, SMALL_FLOATS, SourceTensor, as_float32
from .integers import Integers
from .weight import Weight

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """The tensors that make one weight."""

    name: str  # of the weight
    tensors: Mapping[str, SourceTensor]  # by the ends of their names, such as ".qweight"
    settings: Config  # quantization_config
    folder: Path

    @property
    def is_described(self) -> bool:
        """Whether only descriptions of the tensors are there, without values."""
        return any(tensor.file is None for tensor in self.tensors.values())

    def tensor(self, ending: str, shapes: Sequence[Shape] = (), dtypes: Collection[str] = ()) -> SourceTensor:
        """A tensor that must be there, in one of these shapes and types. Raises LcpuError if it is not."""
        tensor = self.tensors.get(ending)
        if tensor is None:
            first = next(iter(self.tensors.values()))
            stem = self.name.removesuffix(".weight")
            raise self.error(first, f"has no {stem}{ending}: the checkpoint is not whole")
        if dtypes and tensor.dtype not in dtypes:
            raise self.error(tensor, f"has the type {tensor.dtype}, not {' or '.join(dtypes)}")
        if shapes and tensor.shape not in shapes:
            raise self.error(tensor, f"has the shape {shown(tensor.shape)}, but config.json says {shown(shapes[0])}")
        return tensor

    def scales(self, ending: str, shapes: Sequence[Shape] = ()) -> SourceTensor:
        return self.tensor(ending, shapes, (*FLOATS, *SMALL_FLOATS))

    def group_scales(self, ending: str, rows: int) -> tuple[SourceTensor, int]:
        """Scales [groups, rows], and how many groups there are."""
        shape = self.scales(ending).shape
        count = max(1, shape[0]) if len(shape) == 2 else 1
        return self.scales(ending, [(count, rows)]), count

    def error(self, tensor: SourceTensor, cause: str) -> LcpuError:
        return tensor_error(self.folder, tensor, cause)

    def release(self) -> None:
        """Give back the memory that reading took."""
        for tensor in self.tensors.values():
            tensor.release()


@dataclass(frozen=True)
class Packing:
    """A way to store quantized weights. `read` is for matrices, and for stacks of them where it takes these."""

    name: str  # that users know it by
    endings: tuple[str, ...]  # of the names of tensors: X.qweight and others make X.weight
    is_packed: Callable[[Mapping[str, SourceTensor]], bool]  # whether tensors with these endings are a packed weight
    read: Callable[[Parts, Shape], Integers | Weight]  # raises LcpuError for tensors that do not make that shape
    check: Callable[[Config], None] = lambda settings: None  # raises LcpuError for kinds that lcpu does not read
    ignored: tuple[str, ...] = ()  # endings of tensors that have to do with activations, or repeat what others say
    weight_ending: str = ".weight"
    takes_stacks: bool = False  # reads weights of three dimensions, too

    def gather(self, tensors: Mapping[str, SourceTensor], settings: Config, folder: Path
               ) -> dict[str, SourceTensor | Parts]:
        """The weights and other tensors of a checkpoint by their names."""
        gathered: dict[str, SourceTensor | Parts] = {}
        parts: dict[str, dict[str, SourceTensor]] = {}
        for name, tensor in tensors.items():
            ending = next((ending for ending in self.endings if name.endswith(ending)), None)
            if ending is not None:
                parts.setdefault(name.removesuffix(ending) + self.weight_ending, {})[ending] = tensor
            elif not name.endswith(self.ignored):
                gathered[name] = tensor
        for name, found in parts.items():
            if self.is_packed(found):
                gathered[name] = Parts(name, found, settings, folder)
            elif self.weight_ending in found:  # a weight that was left as it is
                gathered[name] = found[self.weight_ending]
            else:
                gathered[name] = next(iter(found.values()))
        return gathered


def floats(tensor: SourceTensor) -> np.ndarray:
    """The values of a tensor of scales: float32 [shape]. Those of a tensor that is only described are 1."""
    return np.ones(tensor.shape, np.float32) if tensor.file is None else as_float32(tensor.array(), tensor.dtype)


def tensor_error(folder: Path, tensor: SourceTensor, cause: str) -> LcpuError:
    where = folder if tensor.file is None else tensor.file.path
    return LcpuError(f"{where}: tensor {tensor.name[:80]!r} {cause}")


def shown(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "of one value"
