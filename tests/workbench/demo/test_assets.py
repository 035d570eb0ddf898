"""What the demo ships besides weights: its photograph and its network."""

from __future__ import annotations

import torch

from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.demo.photograph import photograph


def test_the_photograph_is_an_image_in_range() -> None:
    image = photograph()
    assert image.shape == (1, 3, 512, 512)
    assert image.dtype is torch.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.1


def test_the_tiny_network_has_the_size_that_its_description_gives() -> None:
    parameters = sum(parameter.numel() for parameter in tiny_restormer().parameters())
    assert f"{parameters:,}" in (tiny_restormer.__doc__ or "")
