"""Radial spectra of known maps and of a network's features."""

import math

import pytest
import torch
from tests.lifecycle.networks import image, network, trained
from torch import Tensor

import exda_primitives as exda
from exda_primitives.ops.sorting import sort_half
from exda_primitives.workbench.inspection import radial_spectrum, spectra
from exda_primitives.workbench.inspection.attentions import attentions
from exda_primitives.workbench.inspection.spectra import BINS, FREQUENCIES


def wave(height: int, width: int, down: float, right: float) -> Tensor:
    """A cosine with ``down`` and ``right`` cycles per pixel along the axes; its variance is 1/2."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    return torch.cos(2 * math.pi * (down * y + right * x))


@pytest.mark.parametrize(("down", "right"), [(0.25, 0.0), (0.0, 0.125), (3 / 64, 4 / 64), (0.3, 0.2)])
def test_the_power_of_a_wave_is_at_its_frequency(down: float, right: float) -> None:
    power = radial_spectrum(wave(64, 96, down, right) + 5).nan_to_num()
    peak = int(power.argmax())
    # The window spreads a wave over neighbouring frequencies, some of them in the next ring.
    assert abs(FREQUENCIES[peak] - math.hypot(down, right)) <= 1.01 / (2 * BINS)
    assert power[max(0, peak - 2) : peak + 3].sum() > 0.999 * power.sum()


def test_white_noise_is_flat_at_its_variance() -> None:
    maps = 3 * torch.randn(64, 48, 80, generator=torch.Generator().manual_seed(0))
    found = radial_spectrum(maps)
    # 64 maps with 5 or more frequencies in a ring: the mean scatters by about 1 / sqrt(320) = 6 %.
    assert torch.allclose(found[2:], torch.full((BINS - 2,), 9.0, dtype=torch.float64), rtol=0.2)
    assert (found[:2] < 9).all()


def test_the_sum_is_the_variance() -> None:
    """Parseval's theorem: the rings hold all the power of a wave below 1/2 cycle per pixel."""
    height, width = 64, 96
    found = radial_spectrum(wave(height, width, 0.1, 0.2)).nan_to_num()
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)
    edges = torch.linspace(0, 0.5, BINS + 1)
    sizes = torch.histc(torch.hypot(fy, fx)[torch.hypot(fy, fx) > 0], BINS, 0, float(edges[-1]))
    assert (found * sizes).sum() / (height * width) == pytest.approx(0.5, rel=0.02)


def test_a_constant_has_no_power() -> None:
    assert radial_spectrum(torch.full((2, 40, 40), 7.0)).nan_to_num().max() < 1e-10


def test_a_transposed_map_has_the_same_spectrum() -> None:
    maps = torch.randn(2, 40, 56, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(radial_spectrum(maps), radial_spectrum(maps.mT), rtol=1e-4, equal_nan=True)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (5, 4), (7, 7)])
def test_small_maps_have_few_rings(height: int, width: int) -> None:
    found = radial_spectrum(torch.rand(3, height, width))
    there = int(found.isfinite().sum())
    assert there <= height * width
    assert (there == 0) == (height * width == 1)
    assert not found.isinf().any()


@pytest.mark.parametrize("family", ["mdta", "cross", "histogram"])
def test_spectra_of_features(family: str) -> None:
    model = trained(family)
    seen: list[tuple[Tensor, Tensor]] = []
    name, attention = list(attentions(model).items())[-1]
    handle = attention.register_forward_hook(lambda module, inputs, output: seen.append((inputs[-1], output)))
    with torch.no_grad():
        model(image())
    handle.remove()
    ((received, returned),) = seen
    found = spectra(model, image(), name)[name]
    assert list(found) == ["input", "output", "linear value V", "non-linear value V'"]
    with torch.no_grad():
        projected = sort_half(received)[0] if family == "histogram" else received
        v = attention.qkv_dwconv(attention.qkv(projected))[:, -attention.dim :]
        expected = [received, returned, v, attention.value(v)]
    for power, maps in zip(found.values(), expected, strict=True):
        assert torch.allclose(power, radial_spectrum(maps), rtol=1e-4, equal_nan=True)


def test_spectra_are_means_over_images() -> None:
    model = trained()
    images = [image(seed, height=side, width=side)[0] for seed, side in ((0, 16), (1, 32))]
    both = spectra(model, images, "latent")["latent.0.attn"]
    each = [spectra(model, [each], "latent")["latent.0.attn"] for each in images]
    for name, power in both.items():
        expected = torch.stack([one[name] for one in each]).nanmean(0)
        assert torch.allclose(power, expected, equal_nan=True)
    # A map of 2 x 2 has fewer rings than one of 4 x 4.
    assert both["input"].isfinite().sum() == each[1]["input"].isfinite().sum() > each[0]["input"].isfinite().sum()


@pytest.mark.parametrize("config", [exda.ExDAConfig(value="none"), exda.ExDAConfig(value_position="after"), None])
def test_without_a_non_linear_value_before_the_aggregation(config: exda.ExDAConfig | None) -> None:
    model = network()
    if config is not None:
        exda.patch(model, config)
    assert all(list(powers) == ["input", "output"] for powers in spectra(model, image()).values())


def test_spectra_of_attention_on_tokens() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = exda.ExDAXCAttention(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x.flatten(2).transpose(1, 2), grid=tuple(x.shape[2:]))

    model = Net()
    found = spectra(model, image())["attn"]
    assert torch.allclose(found["input"], radial_spectrum(image()), equal_nan=True)
    v = model.attn.qkv(image().flatten(2).transpose(1, 2))[..., -3:].transpose(1, 2).reshape(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.allclose(found["non-linear value V'"], radial_spectrum(model.attn.value(v)), equal_nan=True)
