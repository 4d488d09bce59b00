#!/usr/bin/env python3
"""Which types lcpu and llama.cpp choose for the tensors of small models of every kind, for every mixture.

    python -m tests.convert.compare_mixtures --peer .venv-peers/bin/python [--random 50] [--write]

Prints what differs. --peer is the Python that has llama-cpp-python. --random adds so many models with random numbers.
--write records llama.cpp's choice for the models of `mixture_models`, which test_type_rules.py compares with.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("mixtures.json")
_NOT_LLAMA_CPP = ("copy", "i2_s", "mxfp4")  # mixtures that llama.cpp does not have


def serve() -> None:
    """Quantize files as lines of JSON on stdin say, and answer each with a line: "true" if it was possible."""
    import llama_cpp as llama  # type: ignore[import-not-found]  # it is in the peer's environment

    silence = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(silence, None)
    for line in sys.stdin:
        task = json.loads(line)
        settings = llama.llama_model_quantize_default_params()
        settings.ftype, settings.nthread = task["file_type"], 1
        ones = [(name.encode(), (ctypes.c_float * size)(*[1.0] * size)) for name, size in task["importance"].items()]
        if ones:
            entries = [(name, ctypes.cast(values, ctypes.POINTER(ctypes.c_float)), len(values))
                       for name, values in ones]
            settings.imatrix = (llama.llama_model_imatrix_data * (len(ones) + 1))(*entries)
        print(json.dumps(llama.llama_model_quantize(task["source"].encode(), task["target"].encode(), settings) == 0),
              flush=True)


class Peer:
    """llama.cpp in a process of its own."""

    def __init__(self, python: str, folder: Path) -> None:
        self._process = subprocess.Popen([python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True)
        self._source, self._target = folder / "in.gguf", folder / "out.gguf"

    def load(self, model: Any) -> None:
        """Write a model of zeros, for `types`."""
        from lcpu.convert.gguf_writer import TensorToWrite, write_gguf

        self._model = model
        write_gguf(self._source, model.metadata, [TensorToWrite(info.name, info.shape, info.type_id, bytes(info.nbytes))
                                                  for info in model.tensors.values()])

    def types(self, file_type: int, imatrix: bool) -> dict[str, str] | None:
        """The types of all tensors by name; None if llama.cpp refuses."""
        from lcpu.engine.gguf_file import GGUFFile

        matrices = {name: info.shape for name, info in self._model.tensors.items() if len(info.shape) > 1}
        sizes = {name: shape[-1] * (shape[0] if len(shape) > 2 else 1) for name, shape in matrices.items()}
        task = {"source": str(self._source), "target": str(self._target), "file_type": file_type,
                "importance": sizes if imatrix else {}}
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(task), file=self._process.stdin, flush=True)
        if not json.loads(self._process.stdout.readline()):
            return None
        with GGUFFile.open(self._target) as file:
            return {name: info.type_name for name, info in file.tensors.items()}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def peer_at(python: str) -> Iterator[Peer]:
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, Path(folder))
        try:
            yield peer
        finally:
            peer.end()


def random_models(count: int) -> dict[str, Any]:
    from .mixture_models import Shape

    models = {}
    for i in range(count):
        choose = random.Random(i).choice
        arch = choose(["llama", "llama", "qwen2", "qwen3", "bitnet"])
        shape = Shape(arch, choose([1, 2, 7, 8, 16, 22, 24, 28, 32, 36, 40, 48, 60, 64, 80]),
                      choose([1, 2, 4, 8, 16, 32]), choose([False, True]),
                      choose([0, 0, 4, 8, 16]) if arch == "llama" else 0,
                      choose([256, 256, 288, 320, 100]), choose([512, 256, 352, 172]))
        models[f"random {i}: {shape}"] = shape
    return models


def ours(model: Any, mixture: str, imatrix: bool) -> dict[str, str]:
    from lcpu.convert.type_rules import MIXTURES, Overrides, choose_types
    from lcpu.engine.gguf_types import TENSOR_TYPES

    ids, _ = choose_types(model.tensors.values(), model.metadata, MIXTURES[mixture], Overrides(), imatrix)
    return {name: TENSOR_TYPES[type_id].name for name, type_id in ids.items()}


def summary(types: dict[str, str]) -> dict[str, str]:
    """Role: the types of its layers in turn, such as "Q6_K*2 Q4_K*20"."""
    roles: dict[str, dict[int, str]] = {}
    for name, kind in types.items():
        *layer, role = name.removeprefix("blk.").removesuffix(".weight").split(".")
        roles.setdefault(role, {})[int(layer[0]) if layer else 0] = kind
    return {role: in_turn([kinds[layer] for layer in sorted(kinds)]) for role, kinds in sorted(roles.items())}


def short(roles: dict[str, str]) -> str:
    """A summary in a line, without norms: "attn_q attn_k: Q4_K*8; output: Q6_K"."""
    by_types: dict[str, list[str]] = {}
    for role, types in roles.items():
        if "norm" not in role:
            by_types.setdefault(types, []).append(role)
    return "; ".join(f"{' '.join(names)}: {types}" for types, names in by_types.items())


def in_turn(kinds: list[str]) -> str:
    runs: list[list[Any]] = []
    for kind in kinds:
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])
    return " ".join(kind if count == 1 else f"{kind}*{count}" for kind, count in runs)


def compare(peer: Peer, models: dict[str, Any]) -> dict[str, Any]:
    """Print what differs. Return llama.cpp's choices: [model][mixture] -> `short`.

    "+ imatrix" after a mixture is for another choice with an importance matrix.
    """
    from lcpu.convert.type_rules import MIXTURES

    mixtures = {name: mixture.file_type for name, mixture in MIXTURES.items() if name not in _NOT_LLAMA_CPP}
    record: dict[str, Any] = {}
    compared = differing = 0
    refused: Counter[str] = Counter()
    for name, model in models.items():
        peer.load(model)
        record[name] = {}
        for mixture, file_type in mixtures.items():
            for imatrix in (False, True):
                assert file_type is not None
                theirs = peer.types(file_type, imatrix)
                if theirs is None:
                    refused[mixture] += 1
                    continue
                mine, compared = ours(model, mixture, imatrix), compared + 1
                if short(summary(theirs)) != record[name].get(mixture):
                    record[name][mixture + " + imatrix" * imatrix] = short(summary(theirs))
                if mine != theirs:
                    differing += 1
                    a, b = summary(mine), summary(theirs)
                    print(f"{name}: {mixture}{' + imatrix' * imatrix}: " + "; ".join(
                        f"{role}: {a[role]}, llama.cpp {b[role]}" for role in a if a[role] != b[role]), flush=True)
    print(f"{compared} comparisons of all tensors of a model, {differing} differ; llama.cpp refused {dict(refused)}")
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python that has llama-cpp-python")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve()
    from .mixture_models import MODELS

    with peer_at(arguments.peer) as peer:
        record = compare(peer, MODELS)
        if arguments.random:
            compare(peer, random_models(arguments.random))
    if arguments.write:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
