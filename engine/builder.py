"""The operations that architectures use: each one works on rows of activations and is recorded in a program.

Building reads shapes and reserves memory. It computes nothing and packs no weights, so that everything about a model is
checked before the first kernel runs.
"""

from __future__ import annotations

import numpy as np

from ..kernels import elementwise
from ..kernels import rope as rope_kernels
from ..kernels.activations import Activation, Float32
from ..kernels.errors import LcpuError
from ..kernels.formats import Format
from ..kernels.gated import gated_matmul
from ..kernels.jit import address_of
from ..kernels.matmul import MAX_TOKENS, PANEL_GROUP, PIECES, whole_groups
from ..kernels.memory import zeros
from ..kernels.pages import POSITIONS
from ..kernels.program import Program
from .attention import Attended, attend, keep
from .batch import Batch
from .forms import prepare
from .gguf_file import GGUFFile
from .hyperparameters import Hyperparameters, Keys
from .input_squares import InputSquares
from .key_balance import KeyBalance
from .memory import Needs
from .page_pool import PagePool
from .rope import RopeTable, rope_factors_name
from .rows import Memory, Rows
from .tensors import Matrix, Tensors, has_tail, padded, role

_LARGEST_SHARE = 512 << 10  # bytes of weights: they stay in the second-level cache for all tokens
_UNROTATED = np.float32(1e30)  # the factor of pairs that stay as they are, in llama.cpp's files of Gemma 4
_MOST_LOGITS = 64 << 20  # bytes: what is used of the buffer for logits, where few of a batch's tokens want any


class Builder:
    """Records the program of one model.

    threads: how many threads share a matmul; results do not depend on it. output_format: of the output layer; None: the
    file's own. input_squares: add up the squares of what matrices are multiplied with.
    """

    def __init__(self, file: GGUFFile, h: Hyperparameters, batch: Batch, pool: PagePool, threads: int,
                 output_format: Format | None = None, *, input_squares: bool = False) -> None:
        self.file, self.h, self.batch, self.pool = file, h, batch, pool
        self.keys = Keys(file.metadata, file.path)  # those that an architecture alone has
        self.program = Program()
        self.matrices: dict[str, Matrix] = {}
        self.tensors = Tensors(file)
        self.rope_tables: list[RopeTable] = []
        self.balances: list[KeyBalance] = []
        self.attended: list[Attended] = []  # by layers, in turn
        self.input_squares = InputSquares(self.program, self.buffer) if input_squares else None
        self._threads, self._output_format = threads, output_format
        self._buffers: dict[tuple[str, int, int], np.ndarray] = {}
        self._memories: dict[tuple[str, int, int], Memory] = {}
        self._inputs: dict[Activation, tuple[Rows, np.ndarray]] = {}
        self.pairs: dict[Memory, tuple[int, int, int]] = {}  # of rotated values
        self._tokens, self._outputs, self.jobs, self.deepest = (batch.counts.ctypes.data + 8 * i for i in range(4))

    # ---- tensors ----

    def has(self, name: str) -> bool:
        return self.tensors.has(name)

    def split(self, fused: str, outputs: list[tuple[str, int]]) -> None:
        """Where the file has one tensor instead of `outputs`, take these from its rows (see `Tensors.split`)."""
        self.tensors.split(fused, outputs)

    def matrix(self, name: str, rows: int, k: int, wanted: Format | None = None, experts: int = 0,
               is_scaled: bool = True) -> Matrix:
        """A tensor of two dimensions, in its own format or a `wanted` one. It is packed later, once all is checked.

        experts: how many there are, each with a matrix of this shape; 0: it is a matrix of all tokens. is_scaled: a
        tensor of the same name that ends in ".scale" multiplies it.
        """
        if name not in self.matrices:
            parts, stored = self.tensors.matrix(name, rows, k, experts)
            format = wanted or stored
            if wanted and has_tail(stored):
                raise LcpuError(f"{self.file.path}: tensor '{name}' is {stored.name.upper()} already: keep its type")
            if k % format.block:
                raise LcpuError(f"{self.file.path}: tensor '{name}' has rows of {k} values, which are not whole "
                                f"{format.name.upper()} blocks of {format.block}: keep its type")
            panel_bytes = format.panel_bytes(k // format.block)
            panels = zeros((len(parts) * whole_groups(rows), panel_bytes), np.uint8, huge_pages=True)
            scales = self.tensors.scales(parts, stored) if is_scaled else None
            self.matrices[name] = Matrix(name, parts, stored, format, rows, k, panels, scales)
        return self.matrices[name]

    def _rope_factors(self) -> np.ndarray | None:
        name, pairs = rope_factors_name(self.file, self.h, self.pool.context), self.h.rope_dimension_count // 2
        if name is None:
            return None
        factors = self.tensors.vector(name, pairs)[:pairs]
        if not np.all((factors >= 1e-6) & (factors <= 1e6) | (factors == _UNROTATED)):  # also for NaN
            raise LcpuError(f"{self.file.path}: tensor '{name}' has a factor that is not 1e-06 to 1e+06: damaged")
        return factors

    # ---- buffers ----

    def buffer(self, name: str, row_bytes: int, capacity: int = 0) -> np.ndarray:
        """Scratch, shared by all layers: uint8 [capacity][row bytes].

        capacity: by default enough for all tokens of a batch, with padding for tiles past the last token.
        """
        key = (name, row_bytes, capacity or self.batch.capacity + MAX_TOKENS)
        if key not in self._buffers:
            self._buffers[key] = zeros((key[2], row_bytes), np.uint8)
        return self._buffers[key]

    def scratch(self, name: str, thread_bytes: int) -> np.ndarray:
        """Scratch for each thread, shared by all layers."""
        return self.buffer(f"{name} scratch", thread_bytes, self._threads)

    def new_rows(self, name: str, width: int, count: int, capacity: int = 0) -> Rows:
        """A new value, in memory that has its role's name; capacity as in `buffer`."""
        key = (name, 4 * padded(width), capacity)
        if key not in self._memories:
            self._memories[key] = Memory(name, self.buffer(*key).view(np.float32))
        return Rows(self._memories[key], width, count)

    def needs(self) -> Needs:
        """The memory that the model takes once the context of one sequence is full."""
        scratch = sum(array.nbytes for (name, _, _), array in self._buffers.items() if name.endswith("scratch"))
        logits_bytes = 4 * padded(self.h.vocab_size)
        buffers = sum(min(array.nbytes, _MOST_LOGITS) if row_bytes == logits_bytes else array.nbytes
                      for (_, row_bytes, _), array in self._buffers.items())
        beside = sum(table.array.nbytes for table in self.rope_tables) + scratch
        return Needs(weights=sum(matrix.panels.nbytes for matrix in self.matrices.values()),
                     context=self.pool.sequence_bytes + beside, q8_0_context=self.pool.q8_0_sequence_bytes() + beside,
                     tokens=self.pool.most * POSITIONS, buffers=buffers - scratch + self.pool.states.sequence_bytes)

    # ---- operations ----

    def embed(self, name: str, width: int = 0, memory: str = "x") -> Rows:
        """The embeddings of the batch's tokens, read directly from the file.

        width: by default the model's. memory: the name of that of the result.
        """
        width = width or self.h.embedding_length
        format = self.tensors.check(name, self.h.vocab_size, width)
        if has_tail(format):
            raise LcpuError(f"{self.file.path}: tensor '{name}' is {format.name.upper()}, which is for matrices: "
                            "an embedding table must have a type with a scale in each block")
        x = self.new_rows(memory, width, self._tokens)
        self.program.add(format.dequantize, name="embed", count=x.count, indices=self.batch.tokens,
                         table=self.file.data(name), blocks=width // format.block, block_bytes=format.block_bytes,
                         block_values=format.block, out=x.array, out_stride=x.stride)
        return x

    def rms_norm(self, x: Rows, name: str, *, plus_one: bool = False, factor: float = 1.0,
                 memory: str = "norm") -> Rows:
        """x / sqrt(mean(x ** 2) + epsilon) * weight * factor, or * (1 + weight) * factor.

        memory: the name of that of the result.
        """
        source, out = x.array, self.new_rows(memory, x.width, x.count)
        weight = self.tensors.vector(name, x.width)
        weight[: x.width] += 1 if plus_one else 0
        weight *= np.float32(factor)
        self.program.add(elementwise.rms_norm, name=role(name), count=x.count, x=source, weight=weight,
                         out=out.array, stride=x.stride, vectors=x.vectors, width=x.width, epsilon=self.h.norm_epsilon)
        return out

    def linear(self, x: Rows, name: str, width: int, *, add_to: Rows | None = None) -> Rows:
        """x . weight^T [+ bias], or its sum with `add_to`, in place. name: the tensor's, without ".weight"."""
        return self.linears(x, [(name, width)], add_to=add_to)[0]

    def linears(self, x: Rows, outputs: list[tuple[str, int]], *, add_to: Rows | None = None) -> list[Rows]:
        """Several products of one input. Threads go from one to the next without waiting for each other."""
        matrices = [self.matrix(f"{name}.weight", width, x.width) for name, width in outputs]
        inputs = [self.input(x, matrix.format.activation) for matrix in matrices]
        if self.input_squares:
            self.input_squares.add(x, matrices)
        results = []
        for matrix, source in zip(matrices, inputs, strict=True):
            out = add_to.changed() if add_to else self.new_rows(role(matrix.name), matrix.rows, x.count)
            panels, panel_stride = len(matrix.panels), matrix.panels.strides[0]
            self.program.add(matrix.format.matmul, barrier=matrix is matrices[-1], name=role(matrix.name),
                             count=x.count, weights=matrix.panels, x=source, out=out.array,
                             x_stride=source.strides[0], out_stride=out.stride, panels=panels,
                             panel_stride=panel_stride, blocks=matrix.blocks, share=self.share(panels, panel_stride),
                             accumulate=add_to is not None)
            results.append(out)
        for (name, width), out in zip(outputs, results, strict=True):
            if self.has(f"{name}.bias"):
                bias = self.tensors.vector(f"{name}.bias", width)
                self.program.add(elementwise.add_bias, count=out.count, x=out.array, bias=bias, stride=out.stride,
                                 vectors=out.vectors)
        return results

    def logits(self, x: Rows, name: str | None = None) -> Rows:
        """The output layer, in the requested format. name: by default its own, or the embedding's where it is both."""
        name = name or ("output" if self.has("output.weight") else "token_embd")
        self.matrix(f"{name}.weight", self.h.vocab_size, x.width, self._output_format)
        return self.linear(x, name, self.h.vocab_size)

    def share(self, panels: int, panel_bytes: int) -> int:
        """How many panels a thread takes at a time."""
        share = min(panels // (PIECES * self._threads), _LARGEST_SHARE // panel_bytes)
        return max(1, share // PANEL_GROUP) * PANEL_GROUP

    def input(self, x: Rows, activation: Activation) -> np.ndarray:
        """x in the form that a format's matmul takes. Consecutive matmuls of x share it."""
        if activation == Float32():
            return x.array
        if self._inputs.get(activation, (None, None))[0] is not x:  # only the last one is kept: there is one buffer
            self._inputs[activation] = x, prepare(self.program, self.buffer, x, activation)
        return self._inputs[activation][1]

    def rms_norm_heads(self, x: Rows, name: str | None, heads: int) -> Rows:
        """Norm each head of a row on its own, in place. name: of the weight, if there is one."""
        head_dim = x.width // heads
        weight = self.tensors.vector(name, head_dim) if name else np.ones(padded(head_dim), np.float32)
        self.program.add(elementwise.rms_norm_heads, name=role(name or "norm"), count=x.count, x=x.array, weight=weight,
                         stride=x.stride, heads=heads, head_dim=head_dim, epsilon=self.h.norm_epsilon)
        return x.changed()

    def rope_table(self, h: Hyperparameters | None = None, *, has_factors: bool = True) -> RopeTable:
        """The angles of the model, or of other hyperparameters, where layers have angles of their own.

        has_factors: whether the file's factors are theirs.
        """
        factors = self._rope_factors() if has_factors else None
        table = RopeTable(h or self.h, self.pool.most * POSITIONS, factors)
        self.rope_tables.append(table)
        return table

    def rope(self, x: Rows, heads: int, *, halves: bool = False, table: RopeTable | None = None) -> Rows:
        """Rotate, in place, neighbouring values of every head, or value i of the first half with i of the second.

        table: by default the first that was made, that of the model.
        """
        table = table or (self.rope_tables[0] if self.rope_tables else self.rope_table())
        step, distance = (1, table.pairs) if halves else (2, 1)
        self.pairs[x.memory] = table.pairs, step, distance
        self.program.add(rope_kernels.rope, count=x.count, positions=self.batch.positions, x=x.array,
                         x_stride=x.stride, heads=heads, head_dim=x.width // heads, table=table.array,
                         pairs=table.pairs, step=step, distance=distance)
        return x.changed()

    def attention(self, q: Rows, k: Rows, v: Rows, layer: str, *, window: int = 0, cap: float = 0.0,
                  scale: float | None = None, sinks: str | None = None) -> Rows:
        """Store k and v of a layer, then let every query see its sequence up to itself.

        layer: what the names of its tensors begin with, such as "blk.0.".
        window: how many positions it sees, 0 for all. cap: scores become cap * tanh(score / cap), unless it is 0.
        scale: of scores, by default 1 / sqrt(head size). sinks: the tensor of a score for each head, whose weight
        goes to no value.
        """
        kept = keep(self, k, v, layer, q.width // self.h.head_count)
        return attend(self, q, kept, window=window, cap=cap, scale=scale, sinks=sinks)

    def gate(self, gate: Rows, up: Rows, activation: str = "silu") -> Rows:
        """activation(gate) * up, in gate's place. activation: a name in `kernels.elementwise.GATES`."""
        self.program.add(elementwise.GATES[activation], count=gate.count, gate=gate.array, up=up.array,
                         up_stride=up.stride, out=gate.array, stride=gate.stride, vectors=gate.vectors)
        return gate.changed()

    def gated(self, x: Rows, gate: str, up: str, width: int, activation: str = "silu") -> Rows:
        """activation(gate . x) * (up . x). gate and up: names of tensors, without ".weight"."""
        matrices = [self.matrix(f"{name}.weight", width, x.width) for name in (gate, up)]
        format, other = (matrix.format for matrix in matrices)
        if format is not other or any(self.has(f"{name}.bias") for name in (gate, up)):
            first, second = self.linears(x, [(gate, width), (up, width)])
            return self.gate(first, second, activation)
        source, panels = self.input(x, format.activation), [matrix.panels for matrix in matrices]
        if self.input_squares:
            self.input_squares.add(x, matrices)
        out, beside = (self.new_rows(role(matrix.name), width, x.count) for matrix in matrices)
        stride = panels[0].strides[0]
        self.program.add(gated_matmul(format, activation), name=f"{role(gate)}, {role(up)}", count=x.count,
                         gate=panels[0], up=panels[1], x=source, out=out.array, other=beside.array,
                         x_stride=source.strides[0], out_stride=out.stride, panels=len(panels[0]), panel_stride=stride,
                         blocks=matrices[0].blocks, share=self.share(len(panels[0]), 2 * stride))
        return out

    def gate_part(self, gate: Rows, x: Rows, first: int, activation: str = "silu") -> Rows:
        """activation(gate) * the values of x from `first` on, in gate's place."""
        self.program.add(elementwise.GATES[activation], count=gate.count, gate=gate.array,
                         up=address_of(x.array) + 4 * first, up_stride=x.stride, out=gate.array, stride=gate.stride,
                         vectors=gate.vectors)
        return gate.changed()

    def copy(self, x: Rows, memory: str) -> Rows:
        """x in other memory, of that name."""
        out = self.new_rows(memory, x.width, x.count)
        self.program.add(elementwise.copy, count=x.count, x=x.array, out=out.array, stride=x.stride, vectors=x.vectors)
        return out

    def soft_cap(self, x: Rows, cap: float) -> Rows:
        """cap * tanh(x / cap), in place."""
        self.program.add(elementwise.soft_cap, count=x.count, x=x.array, stride=x.stride, vectors=x.vectors,
                         cap=float(cap))
        return x.changed()

    def scale(self, x: Rows, factor: float) -> Rows:
        """factor * x, in place."""
        self.program.add(elementwise.scale, count=x.count, x=x.array, stride=x.stride, vectors=x.vectors,
                         factor=float(factor))
        return x.changed()

    def add(self, x: Rows, y: Rows, factor: float = 1.0) -> Rows:
        """x + factor * y, in x's place."""
        self.program.add(elementwise.add, count=x.count, x=x.array, y=y.array, stride=x.stride, vectors=x.vectors,
                         factor=float(factor))
        return x.changed()

    def add_sigmoid_gated(self, x: Rows, y: Rows, source: Rows, name: str) -> Rows:
        """x + y * sigmoid(weight . source), in x's place. name: of the weight, a vector."""
        self.program.add(elementwise.add_sigmoid_gated, name=role(name), count=x.count, x=x.array, y=y.array,
                         stride=x.stride, vectors=x.vectors, source=source.array, source_stride=source.stride,
                         weight=self.tensors.vector(name, source.width), source_vectors=source.vectors)
        return x.changed()

    def outputs(self, x: Rows) -> Rows:
        """The rows of the batch that want logits."""
        out = self.new_rows("outputs", x.width, self._outputs)
        self.program.add(elementwise.gather, name="outputs", count=out.count, indices=self.batch.outputs, x=x.array,
                         out=out.array, stride=x.stride, vectors=x.vectors)
        return out
