"""PSNR and SSIM of one image by a protocol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ImageError
from ..shared.metrics import psnr
from .protocols import Protocol
from .ssim import ssim

_LUMA_UNITS = 1000
"""Weights of luma have three digits: times this, luma of bytes is a whole number, and its rounding exact."""


class Score(NamedTuple):
    """PSNR in dB, infinite for equal images as in all repositories, and SSIM."""

    psnr: float
    ssim: float


def cropped(image: Tensor, protocol: Protocol) -> Tensor:
    """Crops (C, H, W) around its centre to the protocol's multiple.

    Raises:
        ImageError: if what is left is smaller than the window of SSIM.
    """
    height, width = image.shape[-2:]
    down, right = height % protocol.crop, width % protocol.crop
    inside = image[..., down // 2 : height - down + down // 2, right // 2 : width - right + right // 2]
    least = min(inside.shape[-2:]) - 2 * protocol.border
    if least < protocol.window.size:
        raise ImageError(
            f"{height} x {width} pixels, cropped to multiples of {protocol.crop} and by {protocol.border} on each "
            f"side: SSIM of protocol {protocol.name!r} needs {protocol.window.size} x {protocol.window.size}"
        )
    return inside


def measure(restored: Tensor, clean: Tensor, protocol: Protocol, degradation: str = "") -> Score:
    """Compares an image with the clean one in float64, where they are.

    Args:
        restored: (C, H, W) with C = 1 or 3, cropped as the protocol says; clipped to [0, 1] here. Luma is of colour
            images; grey ones are compared as they are.
        clean: likewise.
        protocol: see ``exda_primitives.workbench.evaluation.protocols``.
        degradation: decides the units, where the protocol has any.

    Raises:
        ImageError: for different shapes, values that are not finite, and a clean image of one value where the
            protocol refers to its range.
    """
    if restored.shape != clean.shape:
        raise ImageError(f"an image of shape {tuple(restored.shape)} is compared with one of {tuple(clean.shape)}")
    for what, image in (("compared", restored), ("clean", clean)):
        if not bool(image.isfinite().all()):
            raise ImageError(f"the {what} image holds NaN or infinity")
    a, b = (_shown(image, protocol) for image in (restored, clean))
    if protocol.units:
        a, b = _in_units(a, b, protocol, degradation)
    return Score(float(psnr(a, b)), ssim(a, b, protocol.window))


def _shown(image: Tensor, protocol: Protocol) -> Tensor:
    """(C, H, W) float64 in [0, 1]: what is compared."""
    image = image.detach().clamp(0, 1)
    # In the image's own precision, as scikit-image's img_as_ubyte; halves go to the even number there too.
    values = (image * 255).round().double() / 255 if protocol.as_bytes else image.double()
    if protocol.luma and len(values) == 3:
        values = _luma(values, protocol.luma, protocol.luma_as_bytes)
    inside = slice(protocol.border, -protocol.border or None)
    return values[:, inside, inside]


def _luma(rgb: Tensor, weights: tuple[float, float, float], as_bytes: bool) -> Tensor:
    """(3, H, W) -> (1, H, W), 16/255 to 235/255."""
    if not as_bytes:
        return (torch.tensordot(rgb.new_tensor(weights), rgb, 1)[None] + 16) / 255
    # Whole numbers throughout, so that an exact half is told from what is almost one.
    whole = rgb.new_tensor([round(weight * _LUMA_UNITS) for weight in weights])
    thousandths = torch.tensordot(whole, (rgb * 255).round(), 1)[None]
    one = 255 * _LUMA_UNITS
    return (((thousandths + one // 2) / one).floor() + 16) / 255


def _in_units(restored: Tensor, clean: Tensor, protocol: Protocol, degradation: str) -> tuple[Tensor, Tensor]:
    """Both in units of the clean image's range."""
    try:
        units = protocol.units[degradation]
    except KeyError:
        raise ImageError(
            f"protocol {protocol.name!r} has units for {', '.join(protocol.units)}, not for {degradation!r}"
        ) from None
    (zero, one), (low, high) = units.values, units.shown
    a, b = ((image * (one - zero) + zero).clamp(low, high) for image in (restored, clean))
    extent = b.max() - b.min()
    if not extent:
        raise ImageError(
            f"the clean image has one value from {low:g} to {high:g}: there is no range for figures to refer to"
        )
    return a / extent, b / extent
