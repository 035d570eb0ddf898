"""How close a restored image is to the clean one."""

from __future__ import annotations

from torch import Tensor


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1, over all values together; infinite for equal images.

    Args:
        restored: of any shape; as it is, neither clipped nor rounded.
        clean: of the same shape and dtype.

    Returns:
        A tensor of no dimensions, on the device of both.
    """
    # Late: torchmetrics takes as long to import as all the rest.
    from torchmetrics.functional.image import peak_signal_noise_ratio  # noqa: PLC0415

    found: Tensor = peak_signal_noise_ratio(restored, clean, data_range=1.0)
    return found
