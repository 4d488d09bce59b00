"""`lcpu quantize`: a GGUF file in smaller types, and a table of what was done."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console, divergence, options
from .inspect import aligned, printable, size
from .target_bpw import TargetBpw, budget_table

if TYPE_CHECKING:
    from ..convert.quantize import Quantized
    from ..convert.type_rules import Mixture

WORST = 10  # how many tensors --check lists again, as the worst ones

Input = Annotated[Path, typer.Argument(metavar="IN", help="GGUF file; of a split model, any of its files.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="GGUF file to write.")]
Type = Annotated[
    str | None,
    typer.Argument(
        metavar="TYPE",
        help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s, q4_1, q4_0, iq4_nl (also "
        "named nf4: its levels are close to NF4's), iq4_xs, q3_k_l, q3_k_m, q3_k_s, q2_k, iq3_m, iq3_s, mxfp4 (also "
        "fp4), mxfp4_moe (only experts), nvfp4, q2_0, q1_0, tq2_0, tq1_0, i2_s (ternary models); with "
        "an importance matrix also q2_k_s, iq3_xs, iq3_xxs, iq2_m, iq2_s, iq2_xs, iq2_xxs, iq1_m, iq1_s; copy: keep "
        "all types that no option changes.",
    ),
]
Pure = Annotated[bool, typer.Option("--pure", help="Give all matrices the same type, even if TYPE is a mixture.")]
OutputType = Annotated[
    str | None,
    typer.Option(
        "--output-type", "--output-tensor-type", metavar="TYPE", show_default=False,
        help="Type of the output layer, or of the embedding if that is the output layer too: q8_0, q6_k, ..., or keep.",
    ),
]  # fmt: skip
EmbeddingType = Annotated[
    str | None,
    typer.Option(
        "--embedding-type", "--token-embedding-type", metavar="TYPE", show_default=False,
        help="Type of the token embedding.",
    ),
]  # fmt: skip
TensorTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--tensor-type", metavar="REGEX=TYPE", show_default=False,
        help="Type of the matrices whose name matches, such as 'ffn_down=q6_k'; the first match counts.",
    ),
]  # fmt: skip
Imatrix = Annotated[
    Path | None,
    typer.Option(
        "--imatrix", metavar="FILE", show_default=False,
        help="Importance matrix of the model, as llama.cpp's tools make and read it: which errors count more.",
    ),
]  # fmt: skip
Gptq = Annotated[
    Path | None,
    typer.Option(
        "--gptq", metavar="FILE", show_default=False,
        help="Hessian of the model, of `lcpu imatrix --hessian`: each column of a matrix makes up for the rounding "
        "errors of those before it (GPTQ). It stands for an importance matrix, too.",
    ),
]  # fmt: skip
Ternarize = Annotated[
    str | None,
    typer.Option(
        "--ternarize", metavar="absmean", show_default=False,
        help="Round weights that are not ternary to -m, 0 or m, where m is the mean magnitude of their tensor.",
    ),
]  # fmt: skip
Check = Annotated[bool, typer.Option("--check", help="Measure and list the error of each tensor.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite OUT.")]


def quantize(
    source: Input,
    target: Output,
    type: Type = None,
    target_bpw: TargetBpw = None,
    pure: Pure = False,
    output_type: OutputType = None,
    embedding_type: EmbeddingType = None,
    tensor_type: TensorTypes = None,
    imatrix: Imatrix = None,
    gptq: Gptq = None,
    ternarize: Ternarize = None,
    check: Check = False,
    base: divergence.Base = None,
    text: divergence.TextFile = None,
    window: divergence.Window = 512,
    chunks: divergence.Chunks = None,
    threads: options.Threads = None,
    force: Force = False,
) -> None:
    """Quantize a GGUF file.

    Each tensor gets the type that llama.cpp gives it, or, with --target-bpw, one that is chosen by measured errors. OUT
    is complete as soon as it exists. A table of the types is written to stdout, and with --check the error of each
    tensor: the root mean square error (RMSE), and its ratio to the root mean square of the values. With --kl, both
    models then read a text, and the KL divergence of OUT's predictions from those of BASE is written, as by `lcpu
    perplexity --kl`.
    """
    from ..convert import bit_budget
    from ..convert.hessian import Hessians
    from ..convert.imatrix import check_demands, read_imatrix, without_weights
    from ..convert.output import check_free
    from ..convert.quantize import quantize as write_quantized
    from ..convert.quantize import quantized_again
    from ..convert.type_rules import MIXTURES, Overrides, choose_types
    from ..engine.gguf_file import GGUFFile

    if ternarize not in (None, "absmean"):
        raise options.UsageError(f"--ternarize {ternarize}: it can be absmean")
    if (type is None) == (target_bpw is None):
        raise options.UsageError("the type is missing: give TYPE, or --target-bpw BITS" if type is None else
                                 "--target-bpw chooses the types: leave out TYPE")
    if target_bpw is not None and pure:
        raise options.UsageError("--target-bpw gives tensors different types: leave out --pure")
    mixture = MIXTURES["copy"] if type is None else mixture_named(type)
    comparison = divergence.prepared(source, base, text, window, chunks)
    patterns = tuple(map(override, tensor_type or ()))
    overrides = Overrides(pure, tensor_type_named(output_type), tensor_type_named(embedding_type), patterns)
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile.open(source))
        progress = stack.enter_context(console.LoadProgress())
        check_free(target, force)
        hessians = stack.enter_context(Hessians(gptq)) if gptq else None
        if hessians:
            hessians.check(file.tensors.values())
        importance = read_imatrix(imatrix) if imatrix else hessians.importance() if hessians else None
        types, misfits = choose_types(file.tensors.values(), file.metadata, mixture, overrides, importance is not None)
        file_type, workers = mixture.file_type, threads if threads and threads > 0 else None
        tables: list[str] = []
        if target_bpw is not None:
            budget = bit_budget.choose(file, target_bpw, overrides, importance, threads=workers, progress=progress)
            types, file_type = budget.types, budget.file_type
            tables.append(budget_table(budget, file.tensors))
        check_demands(types, file.tensors, mixture, importance)
        if again := quantized_again(file, types):
            console.notice(f"note: {counted(again)}, quantized before, will lose more than from a float model")
        if importance and (bare := without_weights(types, file.tensors, importance)):
            console.notice(f"note: {importance.path} has nothing for {counted(bare)}: all errors count the same there")
        if misfits:
            console.notice(f"note: the rows of {counted(misfits)} are not whole blocks: another type is taken")
        done = write_quantized(
            file, target, types, file_type, threads=workers, imatrix=importance, hessians=hessians,
            ternarize=ternarize is not None, check=check, force=force, progress=progress,
        )  # fmt: skip
    parts = [*tables, type_table(done), *([error_table(done)] if check else []), totals(source, target, done)]
    console.write("\n\n".join(parts) + "\n")
    if comparison is not None:
        console.write("\n" + divergence.measured(target, comparison, threads))


def mixture_named(name: str) -> Mixture:
    from ..convert.type_rules import ALIASES, MIXTURES

    name = name.lower()
    mixture = MIXTURES.get(ALIASES.get(name, name))
    if mixture is None:
        raise options.UsageError(f"no type {name!r}: TYPE is {', '.join(MIXTURES)}")
    return mixture


def tensor_type_named(name: str | None) -> str:
    from ..convert.type_rules import ALIASES, MIXTURES

    types = {mixture.base.lower(): mixture.base for mixture in MIXTURES.values()}
    if name is None:
        return ""
    if name.lower() in ALIASES:
        return MIXTURES[ALIASES[name.lower()]].base
    if name.lower() not in types:
        raise options.UsageError(f"no type {name!r} for a tensor: there are {', '.join(types)}")
    return types[name.lower()]


def override(text: str) -> tuple[re.Pattern[str], str]:
    """The pattern and the type of a --tensor-type option."""
    pattern, equals, name = text.rpartition("=")
    if not equals:
        raise options.UsageError(f"--tensor-type {text!r}: it is REGEX=TYPE, such as 'ffn_down=q6_k'")
    try:
        return re.compile(pattern), tensor_type_named(name)
    except re.error as error:
        cause = f"not a regular expression ({error})"
        raise options.UsageError(f"--tensor-type {text!r}: {cause}; write one such as 'ffn_down=q6_k'") from None


def counted(names: list[str]) -> str:
    return printable(names[0]) if len(names) == 1 else f"{len(names)} tensors"


def type_table(tensors: Sequence[Quantized]) -> str:
    """A row with the totals of each type, the largest first."""
    from ..engine.gguf_types import TENSOR_TYPES

    by_type: dict[str, list[Quantized]] = {}
    for tensor in tensors:
        by_type.setdefault(TENSOR_TYPES[tensor.new_type].name, []).append(tensor)
    names = sorted(by_type, key=lambda name: -sum(tensor.new_bytes for tensor in by_type[name]))
    rows = [["type", "tensors", "parameters", "size", "bits/weight"]]
    for name in [*names, "all"]:
        same = by_type.get(name, tensors)
        values, nbytes = sum(tensor.values for tensor in same), sum(tensor.new_bytes for tensor in same)
        rows.append([name, str(len(same)), f"{values:,}", size(nbytes), f"{8 * nbytes / max(1, values):.2f}"])
    return "\n".join(aligned(rows, "<>>>>"))


def error_table(tensors: Sequence[Quantized]) -> str:
    """The errors of all changed tensors in the file's order, and again those with the largest relative errors."""
    from ..engine.gguf_types import TENSOR_TYPES

    def row(tensor: Quantized) -> list[str]:
        types = f"{TENSOR_TYPES[tensor.old_type].name} → {TENSOR_TYPES[tensor.new_type].name}"
        return [printable(tensor.name), types, f"{tensor.error:.3e}", f"{tensor.relative_error:.5f}"]

    changed = [tensor for tensor in tensors if tensor.error is not None]
    worst = sorted(changed, key=lambda tensor: -(tensor.relative_error or 0))[:WORST]
    rows = [["tensor", "types", "RMSE", "relative"], *map(row, changed), *map(row, worst)]
    lines = aligned(rows, "<<>>")
    return "\n".join([*lines[: len(changed) + 1], "", f"the worst {len(worst)}", *lines[len(changed) + 1 :]])


def totals(source: Path, target: Path, tensors: Sequence[Quantized]) -> str:
    old, new = sum(tensor.old_bytes for tensor in tensors), sum(tensor.new_bytes for tensor in tensors)
    return f"{source}: {size(old)} → {target}: {size(new)}, {new / max(1, old):.1%}"
