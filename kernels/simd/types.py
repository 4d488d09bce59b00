"""Vectors and tiles as Numba types.

A `Tile` is a small array of SIMD vectors, [panels][tokens], kept in registers.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from ..isa import active

ISA = active()
LANES = ISA.lanes
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()


class BFloatType(ir.Type):
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, BFloatType)

    def __hash__(self):
        return hash(BFloatType)


# "raised": int32 numbers with RAISED added. Read as float32, they are 1.5 * 2**23 + number for numbers below 2**22.
ELEMENTS = {"i8": I8, "i16": I16, "i32": I32, "raised": I32, "f16": F16, "f32": F32}
RAISED = 0x4B400000
# i8 and i16 fill a whole vector, f16 is half of one
_PER_LANE = {"i8": 4, "i16": 2, "i32": 1, "raised": 1, "f16": 1, "f32": 1}


class Tile(types.Type):
    """[panels][tokens] vectors, each as wide as the machine's (f16: half as wide)."""

    def __init__(self, element: str, panels: int = 1, tokens: int = 1) -> None:
        self.element, self.panels, self.tokens = element, panels, tokens
        self.vector = ir.VectorType(ELEMENTS[element], LANES * _PER_LANE[element])
        super().__init__(name=f"Tile({element}x{LANES}[{panels}][{tokens}])")

    @property
    def size(self) -> int:
        return self.panels * self.tokens

    def of(self, element: str) -> Tile:
        return Tile(element, self.panels, self.tokens)


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, tile):
        super().__init__(manager, tile, ir.ArrayType(tile.vector, tile.size))
