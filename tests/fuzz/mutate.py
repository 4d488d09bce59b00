"""Mutations of files that are lists of fields: what each format's fuzzer is made of."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

Fields = list[bytes]

_EXTREMES = [0, 1, 2, 3, 4, 7, 8, 9, 16, 31, 32, 33, 255, 256, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
             2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def mutated(random: Random, seeds: Sequence[Fields], words: Sequence[bytes] = ()) -> Fields:
    """One of the seeds with one to four changes. `words` are fields that a format knows, besides those of its seeds."""
    fields = list(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        if not fields:
            break
        at = random.randrange(len(fields))
        change = random.randrange(10)
        if change == 0:
            del fields[at]
        elif change == 1:
            fields.insert(random.randrange(len(fields) + 1), fields[at])
        elif change == 2:
            other = random.randrange(len(fields))
            fields[at], fields[other] = fields[other], fields[at]
        elif change == 3:
            fields[at] = random.choice(random.choice(seeds) or [b""])
        elif change == 4 and words:
            fields[at] = random.choice(words)
        elif change == 5:
            fields[at] = fields[at][: random.randrange(len(fields[at]) + 1)]
        else:
            fields[at] = altered(random, fields[at])
    return fields


def altered(random: Random, data: bytes) -> bytes:
    """Bytes with a bit flipped, a number in them replaced, some put in, or a part twice.

    Mostly near the end: a field begins with its name and its type, and the values are what matters.
    """
    if not data:
        return random.randbytes(random.randrange(9))
    changed = bytearray(data)
    at = random.randrange(len(changed) if random.random() < 0.3 else min(len(changed), 12))
    at = len(changed) - 1 - at
    change = random.randrange(6)
    if change == 0:
        changed[at] ^= 1 << random.randrange(8)
    elif change == 1:
        changed[at] = random.choice((0, 1, 9, 10, 32, 34, 92, 127, 128, 0xC0, 0xED, 0xF8, 0xFF))
    elif change in (2, 3):
        size = random.choice((1, 2, 4, 8))
        start = random.choice((max(0, len(changed) - size), max(0, len(changed) - 2 * size), at))
        number = random.choice(_EXTREMES) if change == 2 else random.randrange(64)
        changed[start : start + size] = (number % 256**size).to_bytes(size, "little")
    elif change == 4:
        changed[at:at] = random.randbytes(random.randrange(1, 9))
    else:
        changed[at:at] = changed[at : at + random.randrange(1, 65)]
    return bytes(changed)
