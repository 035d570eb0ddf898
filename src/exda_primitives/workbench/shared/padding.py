"""Pads images by reflection to sizes that a network accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = TypeVar("Image", "Tensor", NDArray[np.floating[Any]])

MINIMUM = 16
"""Smallest side of a padded image, in pixels: AMIR's U-net needs more than 8."""


def round_up(size: int, multiple: int) -> int:
    """Returns the smallest multiple of ``multiple`` that is at least ``size``."""
    return -(-size // multiple) * multiple


def padded_side(side: int, multiple: int) -> int:
    """Returns the smallest multiple of ``multiple`` that is at least ``side`` and ``MINIMUM``, in pixels."""
    return round_up(max(side, MINIMUM), multiple)


def pad(image: Image, multiple: int) -> Image:
    """Pads an image at the right and bottom by reflection, without repeating the edge.

    Unlike PyTorch's ``F.pad``, it reflects several times where the padding is wider than the image.

    Args:
        image: tensor or array (..., H, W), H and W at least 1.
        multiple: what the padded sides are divisible by.

    Returns:
        (..., H', W') with the ``padded_side`` of H and W; ``image`` itself if it has these sizes already. Crop with
        ``[..., :H, :W]``.
    """
    for dim in (-2, -1):
        side = image.shape[dim]
        wanted = padded_side(side, multiple)
        if wanted > side:
            image = _taken(image, _reflected(side, wanted), dim)
    return image


def _taken(image: Image, indices: NDArray[np.int64], dim: int) -> Image:
    if isinstance(image, np.ndarray):
        return image.take(indices, dim)
    # Imported here because arrays are padded without PyTorch, too.
    import torch  # noqa: PLC0415

    return image.index_select(dim, torch.from_numpy(indices).to(image.device))


def _reflected(side: int, wanted: int) -> NDArray[np.int64]:
    """Returns the indices 0, 1, ..., side - 1, side - 2, ..., 1, 0, 1, ...: ``wanted`` of them."""
    # One way and back, each end once. A single row or column has nothing to reflect, so it is repeated.
    period = max(2 * (side - 1), 1)
    phase = np.arange(wanted) % period
    return np.minimum(phase, period - phase) if side > 1 else phase
