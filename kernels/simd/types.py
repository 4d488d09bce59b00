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
# Whether rows of int8 activations lie in memory two at a time, for instructions that multiply matrices: 8 bytes of the
# first token, 8 of the second, the next 8 of the first, and so on. Two tokens share the memory of two rows.
PAIRS = ISA.pairs
PIECE = 8  # bytes of a token that lie side by side
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
    """[panels][tokens] vectors, each as wide as the machine's (f16: half as wide).

    paired: its tokens' activations lie as PAIRS says.
    matrix: its vectors are what the instructions that multiply matrices take and give. Of weights, vectors i and i + 1
    are 8 values of rows 0 and 1 and of rows 2 and 3. Of sums, vectors t and t + 1 are tokens t and t + 1 [2] x rows 0
    and 1 [2], and the same tokens x rows 2 and 3.
    """

    def __init__(self, element: str, panels: int = 1, tokens: int = 1, paired: bool = False,
                 matrix: bool = False) -> None:
        self.element, self.panels, self.tokens, self.paired, self.matrix = element, panels, tokens, paired, matrix
        self.vector = ir.VectorType(ELEMENTS[element], LANES * _PER_LANE[element])
        form = " matrix" if matrix else " paired" if paired else ""
        super().__init__(name=f"Tile({element}x{LANES}[{panels}][{tokens}]{form})")

    @property
    def size(self) -> int:
        return self.panels * self.tokens

    def of(self, element: str) -> Tile:
        return Tile(element, self.panels, self.tokens, self.paired, self.matrix)


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, tile):
        super().__init__(manager, tile, ir.ArrayType(tile.vector, tile.size))
