"""Measures PSNR and SSIM of one image by a protocol."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import ImageError
from ..shared.metrics import psnr
from .protocols import Protocol
from .ssim import ssim

_LUMA_UNITS = 1000
"""The weights of luma have three decimals: times this, luma of 8-bit values is an integer, and its rounding exact."""


class Score(NamedTuple):
    """PSNR in dB (infinite for equal images, as in all repositories) and SSIM."""

    psnr: float
    ssim: float


def cropped(image: Tensor, protocol: Protocol) -> Tensor:
    """Crops (C, H, W) around its centre to the protocol's multiple.

    Raises:
        ImageError: the rest is smaller than the window of SSIM.
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
    """Compares an image with the clean one, in float64 on their own device.

    Args:
        restored: image to compare, (C, H, W) with C = 1 or 3, cropped as the protocol says; clipped to [0, 1] here.
            A protocol's luma applies to colour images only; grey ones are compared as they are.
        clean: clean image, in the same form.
        protocol: see ``exda_primitives.workbench.evaluation.protocols``.
        degradation: selects the units, if the protocol has any.

    Raises:
        ImageError: the shapes differ, a value is not finite, or the clean image is constant although the protocol
            needs its range.
    """
    if restored.shape != clean.shape:
        raise ImageError(f"cannot compare an image of shape {tuple(restored.shape)} with one of {tuple(clean.shape)}")
    for what, image in (("compared", restored), ("clean", clean)):
        if not bool(image.isfinite().all()):
            raise ImageError(f"the {what} image holds NaN or infinity")
    a, b = (_shown(image, protocol) for image in (restored, clean))
    if protocol.units:
        a, b = _in_units(a, b, protocol, degradation)
    return Score(float(psnr(a, b)), ssim(a, b, protocol.window))


def _shown(image: Tensor, protocol: Protocol) -> Tensor:
    """Returns what the protocol compares of an image: (C, H, W) float64 in [0, 1], without the border."""
    image = image.detach().clamp(0, 1)
    # Rounded in the image's own precision, halves to even, as in scikit-image's img_as_ubyte.
    values = (image * 255).round().double() / 255 if protocol.as_bytes else image.double()
    if protocol.luma and len(values) == 3:
        values = _luma(values, protocol.luma, protocol.luma_as_bytes)
    inside = slice(protocol.border, -protocol.border or None)
    return values[:, inside, inside]


def _luma(rgb: Tensor, weights: tuple[float, float, float], as_bytes: bool) -> Tensor:
    """Returns luma, (3, H, W) in [0, 1] -> (1, H, W) from 16/255 to 235/255."""
    if not as_bytes:
        return (torch.tensordot(rgb.new_tensor(weights), rgb, 1)[None] + 16) / 255
    # round(sum of w * byte / 255) with halves upwards, in integers, so that an exact half is distinct from almost one.
    whole = rgb.new_tensor([round(weight * _LUMA_UNITS) for weight in weights])
    thousandths = torch.tensordot(whole, (rgb * 255).round(), 1)[None]
    one = 255 * _LUMA_UNITS
    return (((thousandths + one // 2) / one).floor() + 16) / 255


def _in_units(restored: Tensor, clean: Tensor, protocol: Protocol, degradation: str) -> tuple[Tensor, Tensor]:
    """Converts both images to the protocol's units, and divides them by the clean image's range."""
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
            f"the clean image, clamped to {low:g} to {high:g}, is constant: PSNR and SSIM need its range of values"
        )
    return a / extent, b / extent
