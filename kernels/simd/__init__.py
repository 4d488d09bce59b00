"""Explicit SIMD for Numba: vectors and tiles as Numba types, their operations as intrinsics.

A `Tile` is a small array of SIMD vectors, [panels][tokens], kept in registers. Operations broadcast over both axes as
NumPy does: a weight is [panels][1], an activation [1][tokens], an accumulator [panels][tokens], a plain vector [1][1].
Addresses are integers. All LLVM IR of the project is in this folder; kernels above it read as plain Python.
"""

from .types import ISA, LANES, PAIRS, PIECE
from .arithmetic import HIGH_SHIFT, absolute, add_to_bytes, at_argmax, bits, bits_as_f32, f32_as_bits, fma, high_plane
from .arithmetic import low_plane, maximum, minimum, reduce_add, reduce_add_i32, reduce_max, rint, round_f16
from .arithmetic import round_half_away, select_or_zero, square_root, steps, to_f32, to_i32, where_greater
from .matrices import to_matrix, to_rows
from .memory import alloca, append_within, load_f32, load_tile, panel_bf16, panel_bytes, panel_e4m3, panel_e8m0
from .memory import panel_f16, panel_f32, panel_high_bf16, panel_high_nibbles, panel_i8, panel_i8_pairs, panel_low_bf16
from .memory import panel_low_nibbles, panel_vectors, panels_of, prefetch_address, prefetch_ahead, prefetch_direct
from .memory import prefetch_grouped, prefetch_levels, prefetch_pages, prefetch_unpacked, splat_f32, splat_i16
from .memory import splat_i32, store_bf16, store_f16, store_f32, store_i8, store_tile, zeros, zeros_f32, zeros_i32
from .memory import zeros_of_pairs
from .dot_products import BIAS_BASE, BIAS_LANES, BY_RUNS, DOT_ELEMENT, LARGEST_UNSIGNED, SIGNED_OFFSET, SMALL_CODES
from .dot_products import add_partial_sums, add_scaled, begin_block, dot2_bf16, dot2_i16, dot4, dot4_signed
from .dot_products import dot4_unsigned, dot_run, dot_run_signed, fma_numbers, fma_run, fma_tokens, init_from_bias
from .dot_products import partial_sums, scale_add, scale_add_two
from .group_sums import add_biased_pair, add_first, add_group, add_pair, add_second, begin_first, begin_second
from .group_sums import group_sums, room_in_first, room_in_second, scaled, scaled_above, subtracted_from, zero_sums
from .scalars import bits_to_float, get_f16, get_f32, get_i32, get_i64, get_u16, get_u8, nearest_f16, number_table
from .scalars import opaque, put_f16, put_f32, put_i32, put_i64, put_u16, put_u8, table_address
from .shuffles import alternate, byte_of_lane, even_bytes, even_twice, evens, odd_bytes, odd_twice, odds
from .shuffles import swap_neighbours, table_lookup, twice_of_lane
from .system import atomic_add, atomic_get, atomic_put, call_kernel, clock, load_operands, pause, processor_of
from .system import sleep_while, wake_sleepers
from .tile_registers import begin_tiles, clear_tile, end_tiles, multiply_tiles, read_tile, write_tile
