"""Measures how close a restored image is to the clean one."""

from __future__ import annotations

from torch import Tensor


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio in dB for a peak of 1, over all values together.

    Args:
        restored: any shape; used as it is, neither clipped nor rounded.
        clean: same shape and dtype.

    Returns:
        A scalar tensor on the device of both; infinite for equal images.
    """
    # Imported here: torchmetrics takes as long to import as all the rest.
    from torchmetrics.functional.image import peak_signal_noise_ratio  # noqa: PLC0415

    found: Tensor = peak_signal_noise_ratio(restored, clean, data_range=1.0)
    return found
