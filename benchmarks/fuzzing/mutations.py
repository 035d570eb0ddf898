"""Ways to damage a file. Each draws all choices from a seeded ``Random``, so that any input can be made again."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]


def truncated(data: bytes, random: Random) -> bytes:
    """Cuts off the beginning or the end, more often near one of the ends, where headers and directories are."""
    near = random.choice((len(data), 64, 1024))
    kept = random.randrange(min(near, len(data)) + 1)
    return data[: random.choice((kept, len(data) - kept))]


def flipped(data: bytes, random: Random) -> bytes:
    """Flips 1 to 64 bits."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[_place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def overwritten(data: bytes, random: Random) -> bytes:
    """Overwrites a stretch with zeros, ones or noise, as a bad block or a broken transfer does."""
    changed = bytearray(data)
    start = _place(changed, random) if changed else 0
    length = min(random.choice((1, 4, 8, 64, 512)), len(changed) - start)
    filler = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    changed[start : start + length] = filler
    return bytes(changed)


def inserted(data: bytes, random: Random) -> bytes:
    """Inserts bytes, so that every later offset is wrong."""
    start = _place(data, random) if data else 0
    return data[:start] + random.randbytes(random.choice((1, 2, 8, 100))) + data[start:]


def removed(data: bytes, random: Random) -> bytes:
    """Removes bytes, so that every later offset is wrong."""
    start = _place(data, random) if data else 0
    return data[:start] + data[start + random.choice((1, 2, 8, 100)) :]


def doubled(data: bytes, random: Random) -> bytes:
    """Repeats the whole file or a part of it."""
    start, end = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
    return random.choice((data + data, data[:end] + data[start:]))


def noise(data: bytes, random: Random) -> bytes:
    """Replaces all but the first 0 to 16 bytes, by which formats are told apart, with noise."""
    return data[: random.choice((0, 4, 16))] + random.randbytes(random.randrange(2048))


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation for mutation in (truncated, flipped, overwritten, inserted, removed, doubled, noise)
}


def _place(data: bytes | bytearray, random: Random) -> int:
    """Returns a random index, more often near the beginning or the end than in between."""
    near = random.choice((len(data), 32, 512))
    index = random.randrange(min(near, len(data)))
    return random.choice((index, len(data) - 1 - index))
