"""The bandwidth floor: the time that reading and writing alone takes, on the device at hand.

A block's attention matrix depends on every pixel, and only then its output can be written. So whatever is fused, a
block reads its map once for the matrix and once more for the values (the feed-forward may ride along), and writes one
map: three passes. A cross attention reads the map of its queries and that of its keys, the latter once more for the
values, and writes: four. Each family says its ``passes``. Nothing else is counted: not the convolutions between levels,
not that a stencil reads its neighbours twice. Where all maps fit into the caches, the floor is none: there a network
may be faster.
"""

from __future__ import annotations

import statistics

import torch

from ...patching import Report
from ...patching.registry import known_families
from .cases import Comparison
from .precision import PRECISIONS
from .timing import clock

_BYTES = {"cuda": 2**30, "cpu": 2**28}
_COPIES = 10


def floor_bytes(report: Report, comparison: Comparison) -> int | None:
    """Bytes that the recognised blocks read and write at least in a forward pass.

    None unless there are any, and the size of every map and every family are known.
    """
    if not report.matches:
        return None
    total = 0
    for match in report.matches:
        family = known_families().get(match.family)
        if match.downscale is None or family is None:
            return None
        pixels = comparison.batch * -(-comparison.height // match.downscale) * -(-comparison.width // match.downscale)
        total += family.passes * match.dim * pixels
    return total * PRECISIONS[comparison.precision].dtype.itemsize


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of a plain copy that is too large for any cache: median of ten."""
    source = torch.zeros(_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    timed = clock(device)
    seconds = [timed(lambda: target.copy_(source)) for _ in range(_COPIES + 1)][1:]
    return 2 * source.numel() / statistics.median(seconds)
