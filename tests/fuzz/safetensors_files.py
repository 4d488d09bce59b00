"""Headers of safetensors files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

from lcpu.convert.safetensors_file import open_safetensors

from .mutate import Fields, altered, mutated

SHARE = 25
_HEADERS = [
    {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
     "b.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}},
    {"x": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
     "y": {"dtype": "U8", "shape": [0], "data_offsets": [8, 8]}},
    {},
]
_TOKEN = re.compile(rb'"[^"]*"|[\d.]+|.')
_SEEDS: list[Fields] = [_TOKEN.findall(json.dumps(header, separators=(",", ":")).encode()) for header in _HEADERS]
_WORDS = [b"-1", b"1e999", b"-0", b"1.5", b"NaN", b"Infinity", b"null", b"true", b"[", b"]", b"{", b"}", b"[]", b"{}",
          b"18446744073709551616", b"9223372036854775807", b"4294967296", b"9" * 5000, b'"F8_E4M3"', b'"F16"', b'""',
          b'"\\ud800"', b'"\\n"', b"[" * 20000, b'{"a":' * 20000, b"\xff", b"\x00", b'"__metadata__"', b"1e1000000000"]


def case(random: Random) -> bytes:
    header = b"".join(mutated(random, _SEEDS, _WORDS))
    length = len(header).to_bytes(8, "little")
    file = (altered(random, length) if random.random() < 0.05 else length) + header + bytes(32)
    return file[: random.randrange(len(file) + 1)] if random.random() < 0.05 else file


def run(path: Path) -> None:
    file, tensors = open_safetensors(path)
    for tensor in tensors.values():
        tensor.array()
        assert 0 <= tensor.offset <= file.size - tensor.nbytes
    file.close()
