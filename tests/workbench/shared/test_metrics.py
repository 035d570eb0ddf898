"""PSNR."""

from __future__ import annotations

import pytest
import torch

from exda_primitives.workbench.shared.metrics import psnr


def test_psnr_is_taken_over_all_images_together() -> None:
    clean = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    restored = clean.clone()
    restored[0] = 0.1
    found = psnr(restored, clean)
    assert found.shape == ()
    # Half of the values are off by 0.1 (20 dB), half by nothing.
    assert found.item() == pytest.approx(20 + 10 * torch.log10(torch.tensor(2.0)).item())
    assert psnr(clean, clean).isinf()
