"""Metrics that compare a restored image with the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..shared.metrics import psnr


class Score(NamedTuple):
    """PSNR in dB and SSIM (11 x 11 Gaussian window, sigma 1.5), both on RGB in [0, 1]."""

    psnr: float
    ssim: float


def score(restored: Tensor, clean: Tensor) -> Score:
    """Compares one image (1, 3, H, W), clipped to [0, 1], with the clean one."""
    # Imported here, as torchmetrics takes as long to import as everything else together.
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415

    restored = restored.clamp(0, 1)
    ssim = structural_similarity_index_measure(restored, clean, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return Score(float(psnr(restored, clean)), float(ssim))


def mean(scores: Sequence[Score]) -> Score:
    """Returns the mean of both figures."""
    return Score(*(sum(column) / len(scores) for column in zip(*scores, strict=True)))


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Returns the largest |a - b|."""
    return float(torch.max(torch.abs(a - b)))
