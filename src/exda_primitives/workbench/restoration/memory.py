"""Estimates how much memory a forward pass takes and how much is free, and finds the largest tile that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import ImageError
from ...memory import kept
from ..shared.live_bytes import LiveBytes
from ..shared.packages import psutil
from ..shared.padding import round_up

GIB = 2**30

SAFETY = {2: 1.95, 4: 1.75, 8: 1.75}
"""Bytes of the dtype -> resident memory of a forward pass, divided by the peak bytes of its tensors.

The rest is the work space of convolutions (under autocast as large as in float32) and what the allocator keeps.

Measured on an x86 CPU with torch 2.14, one or two threads: rise of the peak resident memory in the first forward pass,
less 64 MiB, over the bytes counted. float32: the demo's Restormer 1.38 (512 x 512), 1.63 (768 x 768), 1.42
(1024 x 1024); patched 1.63 (512 x 512), 1.33 (1024 x 1024); Restormer's default configuration 1.43 (384 x 384).
bfloat16 autocast: the demo's 1.78 (1024 x 1024), patched 1.38 (512 x 512). Float64 was not measured.
"""

SAFETY_KEPT = {2: 2.2, 4: 2.6, 8: 2.6}
"""The same for a process that keeps the memory that it frees (``memory.keep``), whose gaps the next map may not fit.

Rise of the peak in three to eight forward passes, less ``WORK_SPACE``, over the bytes counted.

Measured on an x86 CPU with torch 2.14, glibc 2.36, one and two threads, Restormers of width 12. float32: 1.27 to 2.53
(512 x 512), 1.67 (768 x 768), 1.83 to 2.34 (1024 x 1024); fused 0.5 to 1.2 (512 and 1024, over the bytes counted at
256 x 256). bfloat16 autocast: 1.78 to 1.85 (512 x 512), 1.63 to 1.96 (768 x 768). float64: 1.05 (384 x 384).
"""

WORK_SPACE = 128 * 2**20
"""Bytes that a forward pass takes in addition, whatever the image's size: in the same measurements the first pass took
51 MB, and the allocator kept up to 73 MB of blocks too small to be given back at once."""

LEFT_FREE = 0.9
"""Share of the free memory that is used without a given budget; the rest is left to other processes."""

SMALLEST_TILE = 128
"""Side in pixels; smaller tiles would be mostly overlap, and see too little of the image."""

_FLOAT = 4
"""Bytes of a float32, the dtype of the result."""
_STRIPS = 3
"""Rows of tiles that blending holds besides the result: the new row, its difference to the result, and the steps."""


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory that restoring an image takes.

    Attributes:
        per_pixel: bytes of a forward pass for each pixel of its input.
        channels: channels of the result.
    """

    per_pixel: float
    channels: int

    @classmethod
    def measured(cls, live: LiveBytes, pixels: int, channels: int, dtype: torch.dtype) -> MemoryEstimate:
        """Returns the estimate by the bytes counted in a forward pass in ``dtype`` on ``pixels`` pixels."""
        safety = SAFETY_KEPT if kept() else SAFETY
        return cls(safety[dtype.itemsize] * live.peak / pixels, channels)

    def of(self, height: int, width: int, tile: int | None) -> int:
        """Returns the bytes needed for an image (H, W) in tiles of side ``tile``, or whole (None)."""
        result = _FLOAT * self.channels * height * width
        if tile is None:
            return WORK_SPACE + round(self.per_pixel * height * width) + result
        held = _STRIPS * _FLOAT * self.channels * min(tile, height) * width
        return WORK_SPACE + round(self.per_pixel * min(tile, height) * min(tile, width)) + result + held


def available_bytes(device: torch.device, budget: float | None) -> int:
    """Returns the bytes that this process can still allocate on a device.

    Args:
        device: where the model is.
        budget: GiB that this process may hold there in all; by default most of what is free.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        # Memory that PyTorch has reserved and does not use can be allocated too.
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
    else:
        held = int(psutil().Process().memory_info().rss)
        free = min([int(psutil().virtual_memory().available), *_control_group_bytes()])
    return int(LEFT_FREE * free) if budget is None else int(budget * GIB) - held


def _control_group_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yields the bytes left by each limit of a container or batch system; ``psutil`` only sees the whole machine.

    Source: the Linux kernel's documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    lines = own.read_text().splitlines() if own.exists() else []
    for line in lines:
        # A line is "hierarchy:controllers:path"; version 2 names no controllers.
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, files = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base, files = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.strip("/")
        # Every parent group has its own limit. In a container the path may not exist, but the root does.
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                yield from _group_bytes(folder, *files)


def _group_bytes(folder: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        top, used = (int((folder / name).read_text()) for name in (limit, usage))
        rows = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
        # The kernel counts cached files as used, but drops them when memory is needed.
        yield max(top - used + int(rows.get(cache, 0)), 0)
    # ValueError: the limit is "max", which means none.
    except (OSError, ValueError):
        return


def largest_tile(
    need: MemoryEstimate, height: int, width: int, multiple: int, overlap_of: Callable[[int], int], free: int
) -> int | None:
    """Returns the side of the tiles to use for an image (H, W), or None if it fits whole.

    Args:
        need: memory that the model takes.
        height: height of the padded image, in pixels.
        width: width of the padded image, in pixels.
        multiple: what the side has to be divisible by.
        overlap_of: side of a tile -> least overlap in pixels; at most half the side, and never falling with it.
        free: bytes that can be used.

    Raises:
        ImageError: if not even the smallest tile fits.
    """
    if need.of(height, width, None) <= free:
        return None
    smallest = round_up(SMALLEST_TILE, multiple)
    if need.of(height, width, smallest) > free:
        raise ImageError(
            f"not enough memory: {need.of(height, width, smallest) / GIB:.2f} GiB are needed even in tiles of "
            f"{smallest} pixels, {max(free, 0) / GIB:.2f} GiB can be used."
        )
    # Binary search for the largest side that fits, in units of the multiple.
    low, high = smallest // multiple, -(-max(height, width) // multiple)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if need.of(height, width, middle * multiple) <= free else (low, middle - 1)
    return max(_evened_out(side, low * multiple, multiple, overlap_of(low * multiple)) for side in (height, width))


def _evened_out(length: int, tile: int, multiple: int, overlap: int) -> int:
    """Returns the smallest tile with which an axis needs no more tiles than with ``tile``."""
    if length <= tile:
        return length
    # n tiles of side t that overlap by o cover n (t - o) + o. ``count`` is the smallest n for the given side, and
    # ``evened`` the smallest t for this n, rounded up to a multiple. At least 2 o: an overlap is at most half a tile.
    count = -(-(length - overlap) // (tile - overlap))
    evened = round_up(-(-(length - overlap) // count) + overlap, multiple)
    return max(evened, 2 * overlap)
