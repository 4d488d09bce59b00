"""Vectors with the lanes of one or two others, in another order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from .types import I32, LANES
from .emit import tile_of


def _shuffle(b: Any, first: Any, second: Any, lane: Callable[[int], int]) -> Any:
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, LANES), [lane(i) for i in range(LANES)]))


def _of_one(lane: Callable[[int], int]) -> Any:
    @intrinsic
    def shuffle(context, x):
        def generate(context, b, sig, args):
            vector = b.extract_value(args[0], 0)
            return tile_of(b, [_shuffle(b, vector, vector, lane)], x)

        return x(x), generate

    return shuffle


def _of_two(lane: Callable[[int], int]) -> Any:
    @intrinsic
    def shuffle(context, x, y):
        def generate(context, b, sig, args):
            first, second = (b.extract_value(arg, 0) for arg in args)
            return tile_of(b, [_shuffle(b, first, second, lane)], x)

        return x(x, y), generate

    return shuffle


swap_neighbours = _of_one(lambda i: i ^ 1)  # lanes 1, 0, 3, 2, ...
even_twice = _of_one(lambda i: i - i % 2)  # lanes 0, 0, 2, 2, ...
odd_twice = _of_one(lambda i: i - i % 2 + 1)  # lanes 1, 1, 3, 3, ...
evens = _of_two(lambda i: 2 * i)  # lanes 0, 2, 4, ... of one vector after the other
odds = _of_two(lambda i: 2 * i + 1)
alternate = _of_two(lambda i: i if i % 2 == 0 else LANES + i)  # even lanes of one vector, odd lanes of the other
