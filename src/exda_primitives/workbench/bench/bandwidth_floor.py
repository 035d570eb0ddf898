"""The bandwidth floor: the time that a device needs only to read and write a network's maps.

No output pixel of a block can be written before its attention matrix is known, which depends on every pixel. So however
much is fused, a block reads its map once for the matrix, reads it again for the values (the feed-forward can share this
pass), and writes one map: three passes. A cross attention reads the map of its queries, reads the map of its keys
twice, and writes: four. Each family states its number as ``passes``. Nothing else is counted: neither the convolutions
between levels, nor the neighbours that a stencil reads twice. The floor does not hold where all maps fit into the
caches: there a network may be faster.
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
"""Size of the copied tensor by device type, larger than any cache."""

_COPIES = 10


def floor_bytes(report: Report, comparison: Comparison) -> int | None:
    """Returns the fewest bytes that the recognised blocks read and write in a forward pass.

    None if there is no such block, or if the size of a map or a family is unknown.
    """
    if not report.matches:
        return None
    total = 0
    for match in report.matches:
        family = known_families().get(match.family)
        if match.downscale is None or family is None:
            return None
        # passes * dim * B * ceil(H / downscale) * ceil(W / downscale) elements
        pixels = comparison.batch * -(-comparison.height // match.downscale) * -(-comparison.width // match.downscale)
        total += family.passes * match.dim * pixels
    return total * PRECISIONS[comparison.precision].dtype.itemsize


def copy_bandwidth(device: torch.device) -> float:
    """Measures the bytes per second, read and written, of a plain copy too large for any cache: the median of ten."""
    source = torch.zeros(_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    timed = clock(device)
    # The first copy is a warm-up.
    seconds = [timed(lambda: target.copy_(source)) for _ in range(_COPIES + 1)][1:]
    return 2 * source.numel() / statistics.median(seconds)
