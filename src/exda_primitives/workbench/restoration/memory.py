"""How much memory a forward pass takes, how much there is, and the tile that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import ImageError
from ...memory import kept
from ..shared.live_bytes import LiveBytes
from ..shared.packages import psutil

GIB = 2**30

SAFETY = {2: 1.95, 4: 1.75, 8: 1.75}
"""By bytes of a number: resident memory that a forward pass takes per pixel over the tensors that it holds, for the
work space of convolutions (under autocast as large as in float32) and what the allocator keeps.

Measured on an x86 CPU with torch 2.14, one or two threads: rise of the peak resident memory in the first forward pass,
less 64 MiB, over the bytes counted. float32: the demo's Restormer 1.38 (512 x 512), 1.63 (768 x 768), 1.42
(1024 x 1024); patched 1.63 (512 x 512), 1.33 (1024 x 1024); Restormer's default configuration 1.43 (384 x 384).
bfloat16 autocast: the demo's 1.78 (1024 x 1024), patched 1.38 (512 x 512). Float64 was not measured.
"""

SAFETY_KEPT = {2: 2.2, 4: 2.6, 8: 2.6}
"""The same where the process keeps the memory that it frees, in whose gaps the next map may not fit: the rise of the
peak in three to eight forward passes, less ``WORK_SPACE``.

Measured on an x86 CPU with torch 2.14, glibc 2.36, one and two threads, Restormers of width 12. float32: 1.27 to 2.53
(512 x 512), 1.67 (768 x 768), 1.83 to 2.34 (1024 x 1024); fused 0.5 to 1.2 (512 and 1024, over the bytes counted at
256 x 256). bfloat16 autocast: 1.78 to 1.85 (512 x 512), 1.63 to 1.96 (768 x 768). float64: 1.05 (384 x 384).
"""

WORK_SPACE = 128 * 2**20
"""Bytes beside that, whatever the size: by the same measurements the first forward pass takes 51 MB, and the allocator
kept up to 73 MB of blocks too small to be given back at once."""

LEFT_FREE = 0.9
"""Share of the memory found free that is used where no budget was given: others want some too."""

SMALLEST_TILE = 128
"""Side in pixels; smaller ones are mostly overlap, and know next to nothing of the image."""

_FLOAT = 4
_STRIPS = 3
"""Rows of tiles that blending holds beside the result: the row, its difference to what is there, the steps."""


@dataclass(frozen=True)
class Need:
    """What restoring takes, in bytes.

    Attributes:
        per_pixel: of a forward pass, per pixel of its input.
        channels: of the result.
    """

    per_pixel: float
    channels: int

    @classmethod
    def measured(cls, live: LiveBytes, pixels: int, channels: int, dtype: torch.dtype) -> Need:
        """From what was counted in a forward pass that computed in ``dtype``."""
        safety = SAFETY_KEPT if kept() else SAFETY
        return cls(safety[dtype.itemsize] * live.peak / pixels, channels)

    def of(self, height: int, width: int, tile: int | None) -> int:
        """For an image (H, W) in tiles, or whole."""
        result = _FLOAT * self.channels * height * width
        if tile is None:
            return WORK_SPACE + round(self.per_pixel * height * width) + result
        held = _STRIPS * _FLOAT * self.channels * min(tile, height) * width
        return WORK_SPACE + round(self.per_pixel * min(tile, height) * min(tile, width)) + result + held


def room(device: torch.device, budget: float | None) -> int:
    """Bytes that can still be taken on a device.

    Args:
        device: where the model is.
        budget: GiB that this process may hold there in all; by default most of what is free.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        # What PyTorch has reserved and does not use is free to us.
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
    else:
        held = int(psutil().Process().memory_info().rss)
        free = min([int(psutil().virtual_memory().available), *_control_group_rooms()])
    return int(LEFT_FREE * free) if budget is None else int(budget * GIB) - held


def _control_group_rooms(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What the limits of a container or a batch system leave; ``psutil`` only sees the whole machine.

    Source: the Linux kernel's documentation, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    lines = own.read_text().splitlines() if own.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, files = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base, files = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.strip("/")
        # Each group above has its own limit. In a container the path may not exist, but the root does.
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                yield from _group_room(folder, *files)


def _group_room(folder: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        top, used = (int((folder / name).read_text()) for name in (limit, usage))
        rows = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
        # Cached files count as used, and give way.
        yield max(top - used + int(rows.get(cache, 0)), 0)
    # "max" is no number: no limit.
    except (OSError, ValueError):
        return


def largest_tile(
    need: Need, height: int, width: int, multiple: int, overlap_of: Callable[[int], int], free: int
) -> int | None:
    """The side of the tiles to use for an image (H, W), or None where it fits whole.

    Args:
        need: of the model.
        height: padded, in pixels.
        width: likewise.
        multiple: what the side has to be divisible by.
        overlap_of: least pixels that tiles of a side share: at most half of it, and no fewer for a larger one.
        free: bytes.

    Raises:
        ImageError: where not even the smallest tile fits.
    """
    if need.of(height, width, None) <= free:
        return None
    smallest = -(-SMALLEST_TILE // multiple) * multiple
    if need.of(height, width, smallest) > free:
        raise ImageError(
            f"not enough memory: {need.of(height, width, smallest) / GIB:.2f} GiB are needed even in tiles of "
            f"{smallest} pixels, {max(free, 0) / GIB:.2f} GiB can be used."
        )
    low, high = smallest // multiple, -(-max(height, width) // multiple)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if need.of(height, width, middle * multiple) <= free else (low, middle - 1)
    return max(_evened_out(side, low * multiple, multiple, overlap_of(low * multiple)) for side in (height, width))


def _evened_out(length: int, tile: int, multiple: int, overlap: int) -> int:
    """The smallest tile that needs no more tiles along an axis than ``tile`` does."""
    if length <= tile:
        return length
    count = -(-(length - overlap) // (tile - overlap))
    evened = -(-(-(-(length - overlap) // count) + overlap) // multiple) * multiple
    return max(evened, 2 * overlap)
