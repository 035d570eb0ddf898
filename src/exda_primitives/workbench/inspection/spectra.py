"""Measures the power spectra of feature maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ...patching.select import Patterns
from .attentions import attentions
from .collect import Call, Reader, collect
from .parts import has_value, nonlinear_value, source, spatial, value

BINS = 32
"""Rings of equal width between 0 and 1/2 cycle per pixel."""

FREQUENCIES = tuple((i + 0.5) / (2 * BINS) for i in range(BINS))
"""Centre of each ring, in cycles per pixel of the map."""

INPUT, OUTPUT, VALUE, NONLINEAR = "input", "output", "linear value V", "non-linear value V'"


def spectra(
    model: nn.Module,
    images: Iterable[Tensor],
    blocks: Patterns = None,
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, Tensor]]:
    """Returns the power spectra of what each attention receives and returns, averaged over images and channels.

    Args:
        model: patched or not, of any known family; unchanged afterwards.
        images: (C, H, W) floating point in [0, 1]; shown one by one.
        blocks: pattern or patterns of names, as ``include`` of ``exda_primitives.patch``; all by default.
        on_image: called with the number of images done.

    Returns:
        Name of the attention -> ``"input"`` (the one that the values come from), ``"output"`` and, where ExDA made the
        value non-linear before the aggregation, ``"linear value V"`` and ``"non-linear value V'"`` ->
        ``radial_spectrum``, (32,) float64.

    Raises:
        NoMatchError: for a model without a known attention.
        ImageError: if there are no images, or one is not a float (C, H, W) with pixels.
        ConfigError: for a host's attention on tokens, whose height and width are unknown.
    """
    return spectra_of(model, images, attentions(model, blocks), on_image)


def spectra_of(
    model: nn.Module,
    images: Iterable[Tensor],
    those: Mapping[str, nn.Module],
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[str, Tensor]]:
    """Returns the ``spectra`` of some of the model's attentions, given by name."""
    read = collect(model, images, those, _all, on_image)
    found = {}
    for name, rows in read.items():
        # nanmean: a ring that is NaN for a small image may have power for a larger one.
        means = torch.stack(rows).nanmean(0)
        found[name] = dict(zip(_readers(those[name]), means, strict=True))
    return found


def radial_spectrum(maps: Tensor) -> Tensor:
    """Returns the power in each ring of frequencies, averaged over the ring and over all maps.

    The mean of each map is removed, and the map fades out towards its edges (Hann window), whose jumps would look like
    high frequencies. White noise of variance s^2 has power s^2 in every ring, except at the lowest two frequencies,
    where removing the mean takes a part.

    Args:
        maps: (..., H, W) floating point.

    Returns:
        (32,) float64 on the CPU, for ``FREQUENCIES``; NaN for rings in which a small map has no frequency. The corners
        of the spectrum beyond 1/2 cycle per pixel are left out.
    """
    height, width = maps.shape[-2:]
    maps = maps.reshape(-1, height, width).float()
    down, right = (torch.hann_window(n, device=maps.device) for n in (height, width))
    window = down[:, None] * right
    # The mean under the window, so that the windowed map has no power at frequency 0, which would leak into the next.
    centred = maps - (maps * window).sum((-2, -1), keepdim=True) / window.sum()
    # P = mean over maps of |FFT(w x)|^2 / sum w^2: the division keeps white noise at its variance.
    power = torch.fft.fft2(centred * window).abs().square().mean(0) / window.square().sum()
    rings = _rings(height, width)
    inside = rings < BINS
    sums = torch.bincount(rings[inside], power.cpu().double().flatten()[inside], BINS)
    return sums / torch.bincount(rings[inside], minlength=BINS)


def _rings(height: int, width: int) -> Tensor:
    """Returns the ring of each of the height * width frequencies; ``BINS`` for those in none: zero and the corners."""
    down, right = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    radius = torch.hypot(down[:, None], right).flatten()
    # Ring i holds the radii in (i, i + 1] / (2 BINS).
    rings = (radius * 2 * BINS).ceil().long() - 1
    return torch.where((radius == 0) | (radius > 0.5), BINS, rings)


def _all(call: Call) -> Tensor:
    return torch.stack([radial_spectrum(read(call)) for read in _readers(call.attention).values()])


def _readers(attention: nn.Module) -> Mapping[str, Reader]:
    known = {
        INPUT: source,
        OUTPUT: lambda call: spatial(call, call.output),
    }
    return known | {VALUE: value, NONLINEAR: nonlinear_value} if has_value(attention) else known
