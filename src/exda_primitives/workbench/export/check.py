"""Whether a file computes what the network does, at sizes that it was not written at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..shared.padding import MINIMUM

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2}
"""Root mean square of the difference over that of the output, by the dtype of the file. Measured of a small Restormer,
patched: 1e-7 and 2e-4 (onnxruntime 1.32, CPU)."""

MARGIN = 4.0
"""Times the network's own rounding error that a difference may be: both programs round, each in its own order."""

_SIZES = ((1, 0, 2), (2, 4, 0), (3, 2, 6))
_TRACED = (2, 1, 3)


@dataclass(frozen=True)
class Difference:
    """Between a file and the network, over the images of all sizes.

    Attributes:
        sizes: (B, H, W) of the images, in pixels.
        relative: root mean square of the difference over that of the output, of the size where it is largest.
        largest: of any pixel and channel.
        allowed: relative difference.
        own: where the difference is above the tolerance, PyTorch's in float32 from itself in float64.
    """

    sizes: tuple[tuple[int, int, int], ...]
    relative: float
    largest: float
    allowed: float
    own: float | None = None

    @property
    def is_allowed(self) -> bool:
        """False for NaN as well."""
        return self.relative <= self.allowed


def sizes_for(multiple: int) -> tuple[tuple[int, int, int], ...]:
    """Three (B, H, W) of odd multiples, no side below what any network takes.

    Example:
        >>> sizes_for(8), sizes_for(1)
        (((1, 24, 40), (2, 56, 24), (3, 40, 72)), ((1, 17, 19), (2, 21, 17), (3, 19, 23)))
    """
    least = _least_odd(multiple)
    return tuple((batch, multiple * (least + down), multiple * (least + right)) for batch, down, right in _SIZES)


def size_to_trace(multiple: int) -> tuple[int, int, int]:
    """(B, H, W) that is none of ``sizes_for``, no side like another, the batch not 1."""
    batch, down, right = _TRACED
    return batch, multiple * (_least_odd(multiple) + down), multiple * (_least_odd(multiple) + right)


def difference_of(
    run: Callable[[Tensor], Tensor], model: nn.Module, channels: int, multiple: int, dtype: torch.dtype
) -> Difference:
    """Compares a file with the network, in eval mode and float32, on random images.

    Args:
        run: what the file computes of (B, C, H, W), float32.
        model: the network, on the CPU.
        channels: C.
        multiple: of height and width.
        dtype: that the file computes in.
    """
    sizes = sizes_for(multiple)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(batch, channels, *sides, generator=generator) for batch, *sides in sizes]
    with torch.no_grad():
        expected = [model(image) for image in images]
        found = [run(image) for image in images]
        relative, largest = _apart(found, expected)
        allowed, own = TOLERANCE[dtype], None
        if not relative <= allowed:
            exact = deepcopy(model).double()
            own, _ = _apart(expected, [exact(image.double()) for image in images])
            allowed = max(allowed, MARGIN * own)
    return Difference(sizes, relative, largest, allowed, own)


def _least_odd(multiple: int) -> int:
    return max(-(-MINIMUM // multiple), 1) | 1


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    relative = largest = torch.zeros((), dtype=torch.float64)
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"an output of {tuple(one.shape)} instead of {tuple(other.shape)}")
        apart, scale = one.double() - other.double(), other.double().square().mean().sqrt()
        # torch.maximum keeps a NaN.
        relative = torch.maximum(relative, apart.square().mean().sqrt() / scale.clamp_min(1e-12))
        largest = torch.maximum(largest, apart.abs().max())
    return float(relative), float(largest)
