"""GGUF files: the reader, the hyperparameters, and all that is checked of a model before its weights are packed."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np

from lcpu.engine import model as model_module
from lcpu.engine.gguf_file import GGUFFile

from .mutate import Fields, altered, mutated

SHARE = 55  # of the cases, in percent
_UINT32, _FLOAT32, _STRING, _ARRAY = 4, 6, 8, 9
_WIDTH, _VOCAB = 32, 6
_F32, _Q4_0, _Q8_0 = 0, 2, 8
_BLOCK_BYTES = {_F32: (1, 4), _Q4_0: (32, 18), _Q8_0: (32, 34)}


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key: str, value: object) -> bytes:
    """A key and its value, of the type that files have for it."""
    head = text(key)
    if isinstance(value, bool):
        return head + struct.pack("<I?", 7, value)
    if isinstance(value, str):
        return head + struct.pack("<I", _STRING) + text(value)
    if isinstance(value, int):
        return head + struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return head + struct.pack("<If", _FLOAT32, value)
    assert isinstance(value, list)
    if value and isinstance(value[0], str):
        return head + struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(text, value))
    array = np.array(value, "<f4" if value and isinstance(value[0], float) else "<i4")
    return head + struct.pack("<IIQ", _ARRAY, _FLOAT32 if array.dtype.kind == "f" else 5, len(value)) + array.tobytes()


def written(pairs: Fields, infos: Fields, data: int) -> bytes:
    """A file of these parts."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32 + data)


def _model(architecture: str, type_id: int, **more: object) -> tuple[Fields, Fields, int]:
    metadata: dict[str, object] = {
        "general.architecture": architecture,
        f"{architecture}.context_length": 512,
        f"{architecture}.embedding_length": _WIDTH,
        f"{architecture}.block_count": 1,
        f"{architecture}.feed_forward_length": _WIDTH,
        f"{architecture}.attention.head_count": 2,
        f"{architecture}.attention.head_count_kv": 1,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": 10000.0,
        f"{architecture}.vocab_size": _VOCAB,
        **more,
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (_VOCAB, _WIDTH), "output_norm.weight": (_WIDTH,)}
    for name, rows in (("attn_q", 32), ("attn_k", 16), ("attn_v", 16), ("attn_output", 32), ("ffn_gate", 32),
                       ("ffn_up", 32), ("ffn_down", 32)):
        shapes[f"blk.0.{name}.weight"] = (rows, _WIDTH)
    vectors = {"attn_norm.weight": 32, "ffn_norm.weight": 32}
    if architecture == "qwen2":
        vectors |= {"attn_q.bias": 32, "attn_k.bias": 16, "attn_v.bias": 16}
    if architecture == "qwen3":
        vectors |= {"attn_q_norm.weight": 16, "attn_k_norm.weight": 16}
    if architecture == "bitnet":
        vectors |= {"attn_sub_norm.weight": 32, "ffn_sub_norm.weight": 32}
    shapes |= {f"blk.0.{name}": (width,) for name, width in vectors.items()}
    infos, offset = [], 0
    for name, shape in shapes.items():
        kind = type_id if len(shape) == 2 else _F32
        values, nbytes = _BLOCK_BYTES[kind]
        infos.append(text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset))
        offset += -(-int(np.prod(shape)) // values * nbytes // 32) * 32
    return [pair(key, value) for key, value in metadata.items()], infos, offset


_MODELS = [
    _model("llama", _F32),
    _model("qwen2", _Q4_0, **{"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0}),
    _model("qwen3", _Q8_0, **{"qwen3.attention.key_length": 16, "general.alignment": 32}),
    _model("bitnet", _Q4_0, **{"split.no": 0, "split.count": 1, "general.name": "x", "llama.layers": [1, 2, 3]}),
]
_PAIRS = [pairs for pairs, _, _ in _MODELS]
_INFOS = [infos for _, infos, _ in _MODELS]


def case(random: Random) -> bytes:
    """A file, of which most have true counts."""
    pairs, infos, data = random.choice(_MODELS)
    if random.random() < 0.6:
        pairs = mutated(random, [pairs] * 3 + _PAIRS)
    if random.random() < 0.5:
        infos = mutated(random, [infos] * 3 + _INFOS)
    file = written(pairs, infos, data)
    if random.random() < 0.2:
        file = altered(random, file[:32]) + file[32:]
    if random.random() < 0.1:
        file = altered(random, file)
    if random.random() < 0.05:
        file = file[: random.randrange(len(file) + 1)]
    return file


class _Reached(Exception):
    """All checks are passed."""


def _stop(*_: object) -> None:
    raise _Reached


def run(path: Path) -> None:
    with GGUFFile.open(path) as file:
        for key in file.metadata:
            file.metadata[key]
        # This is what comes between the checks of a model and its packing.
        with mock.patch.object(model_module, "announcing", _stop), suppress(_Reached):
            model_module.Model(file, None, 1)
