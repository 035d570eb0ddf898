"""Ways to damage a file, each from a seeded source of choices, so that any input can be made again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]


def truncated(data: bytes, random: Random) -> bytes:
    """Cut off anywhere, more often near the ends, where headers and directories are."""
    near = random.choice((len(data), 64, 1024))
    kept = random.randrange(min(near, len(data)) + 1)
    return data[: random.choice((kept, len(data) - kept))]


def flipped(data: bytes, random: Random) -> bytes:
    """A few bits turned over."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[_place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, random: Random) -> bytes:
    """A stretch of zeros, ones, or noise, as a bad block or a broken transfer leaves."""
    changed = bytearray(data)
    start = _place(changed, random) if changed else 0
    length = min(random.choice((1, 4, 8, 64, 512)), len(changed) - start)
    filler = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    changed[start : start + length] = filler
    return bytes(changed)


def inserted(data: bytes, random: Random) -> bytes:
    """Bytes put in, so that every later offset is wrong."""
    start = _place(data, random) if data else 0
    return data[:start] + random.randbytes(random.choice((1, 2, 8, 100))) + data[start:]


def removed(data: bytes, random: Random) -> bytes:
    """Bytes taken out, so that every later offset is wrong."""
    start = _place(data, random) if data else 0
    return data[:start] + data[start + random.choice((1, 2, 8, 100)) :]


def doubled(data: bytes, random: Random) -> bytes:
    """The file, or a part of it, twice."""
    start, end = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    return random.choice((data + data, data[:end] + data[start:]))


def noise(data: bytes, random: Random) -> bytes:
    """Nothing of the file but its first bytes, by which formats are told apart."""
    return data[: random.choice((0, 4, 16))] + random.randbytes(random.randrange(2048))


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation for mutation in (truncated, flipped, overwritten, inserted, removed, doubled, noise)
}


def _place(data: bytes | bytearray, random: Random) -> int:
    """An index, more often near the beginning or the end than in between."""
    near = random.choice((len(data), 32, 512))
    index = random.randrange(min(near, len(data)))
    return random.choice((index, len(data) - 1 - index))
