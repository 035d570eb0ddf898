"""Losses and learning rates."""

import math

import pytest
import torch

from exda_primitives.workbench.training import RecipeConfig
from exda_primitives.workbench.training.objective import learning_rate, loss_of


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_the_loss_is_the_weighted_sum_of_l1_and_transform(size):
    ours, theirs = torch.rand(2, 2, 3, *size, dtype=torch.float64)
    assert loss_of(ours, theirs, RecipeConfig(steps=1)) == (ours - theirs).abs().mean()
    spectrum = torch.fft.rfft2(ours - theirs)
    expected = 2 * (ours - theirs).abs().mean() + 0.1 * (spectrum.real.abs() + spectrum.imag.abs()).mean() / 2
    torch.testing.assert_close(loss_of(ours, theirs, RecipeConfig(steps=1, l1=2, fft=0.1)), expected)


def test_the_transform_is_a_sum_without_a_factor():
    """A constant difference has a single coefficient other than 0: the difference times the number of pixels."""
    clean = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    spectrum = 0.25 * 6 * 8 / (2 * 6 * (8 // 2 + 1))
    loss = loss_of(clean + 0.25, clean, RecipeConfig(steps=1, l1=0, fft=0.1))
    torch.testing.assert_close(loss.item(), 0.1 * spectrum)


def test_the_transforms_loss_of_noise_grows_with_the_side():
    noise = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean, recipe = torch.zeros_like(noise), RecipeConfig(steps=1, l1=0, fft=1)
    small = loss_of(noise[..., :32, :32], clean[..., :32, :32], recipe)
    # Coefficients of noise grow with the root of the number of pixels: 128 / 32 = 4.
    assert (loss_of(noise, clean, recipe) / small).item() == pytest.approx(4, rel=0.05)


def test_losses_of_half_precision_are_summed_in_float32():
    clean = torch.full((1, 3, 64, 64), 0.5)
    restored = (clean + 0.25).bfloat16()
    loss = loss_of(restored, clean, RecipeConfig(steps=1))
    assert loss.dtype == torch.float32
    assert loss == 0.25


def test_learning_rates_of_promptir():
    """Warm-up over 15 of 120 epochs, a cosine that would end at 150."""
    recipe = RecipeConfig(steps=1200, learning_rate=2e-4, warm_up=0.125, cosine_to=1.25)
    rates = [learning_rate(step, 1200, recipe) for step in range(1200)]
    assert rates[0] == pytest.approx(2e-4 / 150)
    assert max(rates) == rates[149] == rates[150] == 2e-4
    assert rates[825] == pytest.approx(1e-4)
    assert rates == sorted(rates[:150]) + sorted(rates[150:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4 * (1 + math.cos(math.pi * (1199 - 150) / 1350)))


def test_a_learning_rate_that_stays_before_the_cosine():
    """Restormer's: constant for 92 of 300 thousand steps, then a cosine."""
    recipe = RecipeConfig(steps=300, learning_rate=3e-4, cosine_from=92 / 300)
    rates = [learning_rate(step, 300, recipe) for step in range(300)]
    assert rates[:93] == [3e-4] * 93
    assert rates[196] == pytest.approx(1.5e-4)
    assert rates[92:] == sorted(rates[92:], reverse=True)
    warmed = RecipeConfig(steps=10, learning_rate=1.0, warm_up=0.2, cosine_from=0.6)
    rates = [learning_rate(step, 10, warmed) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_constant_learning_rate_and_a_single_step():
    recipe = RecipeConfig(steps=3, learning_rate=0.5, cosine_to=None)
    assert [learning_rate(step, 3, recipe) for step in range(3)] == [0.5] * 3
    assert learning_rate(0, 1, RecipeConfig(steps=1, learning_rate=0.5, warm_up=1.0)) == 0.5
