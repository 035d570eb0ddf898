"""Checks that a file computes what the network does, at sizes other than the one it was traced with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..shared.padding import MINIMUM

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2}
"""Allowed relative difference (root mean square of the difference over that of the output) by the file's dtype.
Measured with a small patched Restormer: 1e-7 in float32, 2e-4 in float16 (onnxruntime 1.32, CPU)."""

MARGIN = 4.0
"""Allowed difference over the network's own rounding error, where this is above the tolerance: both programs round, in
different orders."""

_SIZES = ((1, 0, 2), (2, 4, 0), (3, 2, 6))
"""Batch, and what is added to the least odd multiple for height and width: even, so that all multiples are odd."""

_TRACED = (2, 1, 3)
"""The same for the image to trace with; odd, so that its sides are none of the others."""


@dataclass(frozen=True)
class Difference:
    """The difference between a file and the network, over images of all sizes.

    Attributes:
        sizes: (B, H, W) of the images, sides in pixels.
        relative: root mean square of the difference over that of the output, at the size where it is largest.
        largest: largest absolute difference of any pixel and channel.
        allowed: largest relative difference allowed.
        own: relative difference of PyTorch in float32 from itself in float64; None if ``relative`` is within the
            tolerance, so that it was not needed.
    """

    sizes: tuple[tuple[int, int, int], ...]
    relative: float
    largest: float
    allowed: float
    own: float | None = None

    @property
    def is_allowed(self) -> bool:
        """Whether the relative difference is allowed; NaN is not."""
        return self.relative <= self.allowed


def sizes_for(multiple: int) -> tuple[tuple[int, int, int], ...]:
    """Returns three sizes (B, H, W) with sides that are odd multiples, none below what any network accepts.

    Examples:
        >>> sizes_for(8), sizes_for(1)
        (((1, 24, 40), (2, 56, 24), (3, 40, 72)), ((1, 17, 19), (2, 21, 17), (3, 19, 23)))
    """
    least = _least_odd(multiple)
    return tuple((batch, multiple * (least + down), multiple * (least + right)) for batch, down, right in _SIZES)


def size_to_trace(multiple: int) -> tuple[int, int, int]:
    """Returns a (B, H, W) that differs from all of ``sizes_for``, with different sides and a batch other than 1."""
    batch, down, right = _TRACED
    return batch, multiple * (_least_odd(multiple) + down), multiple * (_least_odd(multiple) + right)


def difference_of(
    run: Callable[[Tensor], Tensor], model: nn.Module, channels: int, multiple: int, dtype: torch.dtype
) -> Difference:
    """Compares a file with the network on random images.

    Args:
        run: runs the file on an image (B, C, H, W) float32.
        model: the network, in eval mode and float32 on the CPU.
        channels: C, channels of an image.
        multiple: number that height and width have to be multiples of.
        dtype: dtype that the file computes in.
    """
    sizes = sizes_for(multiple)
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(batch, channels, *sides, generator=generator) for batch, *sides in sizes]
    with torch.no_grad():
        expected = [model(image) for image in images]
        found = [run(image) for image in images]
        relative, largest = _apart(found, expected)
        allowed, own = TOLERANCE[dtype], None
        # Only if needed, as float64 is slow: a network that amplifies rounding differs from itself, too.
        if not relative <= allowed:
            exact = deepcopy(model).double()
            own, _ = _apart(expected, [exact(image.double()) for image in images])
            allowed = max(allowed, MARGIN * own)
    return Difference(sizes, relative, largest, allowed, own)


def _least_odd(multiple: int) -> int:
    """Returns the smallest odd number whose product with ``multiple`` is at least `MINIMUM`; 1 at least."""
    return max(-(-MINIMUM // multiple), 1) | 1


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    relative = largest = torch.zeros((), dtype=torch.float64)
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"an output of {tuple(one.shape)} instead of {tuple(other.shape)}")
        apart, scale = one.double() - other.double(), other.double().square().mean().sqrt()
        # torch.maximum keeps a NaN, Python's max may not.
        relative = torch.maximum(relative, apart.square().mean().sqrt() / scale.clamp_min(1e-12))
        largest = torch.maximum(largest, apart.abs().max())
    return float(relative), float(largest)
