"""Kernels that are nothing but one thing: the tile of a format, or how a thread waits."""

from __future__ import annotations

from lcpu.kernels.formats import FORMATS
from lcpu.kernels.isa import TILES
from lcpu.kernels.jit import Kernel, bind, hole, native, template
from lcpu.kernels.simd import pause, processor_of, sleep_while, store_tile, wake_sleepers

multiply = start = panels = tokens = hole()


@template
def _alone(panel, panel_stride, x, x_stride, blocks, out):
    store_tile(multiply(start(panels, tokens), panel, panel_stride, x, x_stride, blocks), out, 16, 64)
    return 0


def tile(name: str, count: str) -> tuple[Kernel, int]:
    """The tile of a format for so many tokens, or of fewer where it has no such one; and how many panels that has."""
    (format,) = (format for format in FORMATS.values() if format.name == name)
    known = format.multiply.py_func.__globals__
    size = next(size for size in TILES if size <= int(count) and known[f"panels_{size}"])
    alone = bind(_alone, f"tile_{name}_{size}", multiply=known["sweep"].py_func.__globals__["tile"],
                 start=known["start"], panels=known[f"panels_{size}"], tokens=size)
    return native(alone), size * known[f"panels_{size}"]


@native
def _wait(address, value):
    pause()
    sleep_while(address, value)
    wake_sleepers(address)
    return processor_of(0)


def waiting() -> tuple[Kernel, int]:
    return _wait, 0
