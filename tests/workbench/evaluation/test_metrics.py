"""PSNR and SSIM of every protocol, compared with its repository's formulas in NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workbench.evaluation.formulas import BY_NAME
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from exda_primitives.errors import ImageError
from exda_primitives.workbench.evaluation import PROTOCOLS, measure
from exda_primitives.workbench.evaluation.metrics import cropped
from exda_primitives.workbench.evaluation.protocols import Protocol, Window
from exda_primitives.workbench.evaluation.ssim import ssim

COLOUR = [name for name in PROTOCOLS if name != "amir"]
# torchmetrics takes the logarithm's base in float32: 1e-7 of 50 dB.
PSNR_TOLERANCE = 1e-5


def pair(
    height: int = 40, width: int = 53, channels: int = 3, seed: int = 0, noise: float = 0.1
) -> tuple[Tensor, Tensor]:
    """A restored image with values beyond [0, 1], and a clean one of 8-bit values with smooth parts."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, channels, 5, 6, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0]
    clean = (smooth * 255).round() / 255
    return clean + noise * torch.randn(clean.shape, generator=random), clean


def channels_last(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("noise", [0.2, 0.01])
def test_scores_are_those_of_the_repository(name: str, noise: float) -> None:
    restored, clean = pair(channels=1 if name == "amir" else 3, noise=noise)
    found = measure(restored, clean, PROTOCOLS[name], "CT")
    psnr, similarity = BY_NAME[name](channels_last(restored), channels_last(clean))
    assert found.psnr == pytest.approx(psnr, abs=PSNR_TOLERANCE)
    assert found.ssim == pytest.approx(similarity, abs=1e-9)


def test_protocols_differ() -> None:
    restored, clean = pair()
    scores = {name: measure(restored, clean, PROTOCOLS[name]) for name in COLOUR}
    same = {"adair": "promptir", "moce-ir-cdd11": "moce-ir"}
    for name, alike in same.items():
        assert scores.pop(name) == scores[alike]
    assert len({round(score.ssim, 4) for score in scores.values()}) == len(scores)


@pytest.mark.parametrize("unit", ["PET", "CT", "MRI"])
def test_units_of_a_modality(unit: str) -> None:
    restored, clean = pair(channels=1)
    units = PROTOCOLS["amir"].units[unit]
    (zero, one), (low, high) = units.values, units.shown
    a, b = ((image.double().clamp(0, 1) * (one - zero) + zero).clamp(low, high) for image in (restored, clean))
    extent = float(b.max() - b.min())
    expected = 10 * math.log10(extent**2 / float(((a - b) ** 2).mean()))
    assert measure(restored, clean, PROTOCOLS["amir"], unit).psnr == pytest.approx(expected, abs=PSNR_TOLERANCE)


@pytest.mark.parametrize("name", COLOUR)
def test_equal_images_have_infinite_psnr_and_ssim_1(name: str) -> None:
    _, clean = pair()
    found = measure(clean, clean, PROTOCOLS[name])
    assert found.psnr == math.inf
    assert found.ssim == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("gaussian", [True, False])
def test_ssim_is_that_of_torchmetrics(gaussian: bool) -> None:
    restored, clean = (image.double() for image in pair())
    window = Window("gaussian" if gaussian else "uniform", 11, sample_covariance=False)
    _, similarity = structural_similarity_index_measure(
        restored[None], clean[None], data_range=1.0, gaussian_kernel=gaussian, return_full_image=True
    )
    assert ssim(restored, clean, window) == pytest.approx(float(similarity[..., 5:-5, 5:-5].mean()), abs=1e-12)


def test_ssim_of_a_bright_uniform_image_is_exact() -> None:
    # E[x^2] - E[x]^2 in float32 would be off by 2e-3 here.
    clean = torch.full((3, 30, 30), 252 / 255, dtype=torch.float64)
    assert ssim(clean, clean - 1 / 255, PROTOCOLS["moce-ir"].window) == pytest.approx(0.99999, abs=1e-5)


def test_luma_of_bytes_is_rounded_half_up() -> None:
    """65,481 R + 128,553 G + 24,966 B is 127,500 more than a multiple of 255,000 for these three."""
    protocol = PROTOCOLS["restormer-y"]
    halves = [
        (r, g, b)
        for r in range(0, 256, 5)
        for g in range(0, 256, 5)
        for b in range(0, 256, 5)
        if (65481 * r + 128553 * g + 24966 * b) % 255000 == 127500
    ]
    assert halves
    for colour in halves[:3]:
        image = (torch.tensor(colour, dtype=torch.float32) / 255)[:, None, None].expand(3, 16, 16)
        luma = (65481 * colour[0] + 128553 * colour[1] + 24966 * colour[2] + 127500) // 255000 + 16
        black = 20 * math.log10(255 / (luma - 16))
        assert measure(image, torch.zeros(3, 16, 16), protocol).psnr == pytest.approx(black, abs=PSNR_TOLERANCE)


def test_grey_images_are_their_own_luma() -> None:
    restored, clean = pair(channels=1)
    rounded = Protocol("", "", PROTOCOLS["restormer-y"].window, as_bytes=True)
    assert measure(restored, clean, PROTOCOLS["restormer-y"]) == measure(restored, clean, rounded)


@given(height=st.integers(16, 70), width=st.integers(16, 70))
@settings(max_examples=30, deadline=None)
def test_crop_around_the_centre(height: int, width: int) -> None:
    image = torch.arange(height * width).reshape(1, height, width)
    found = cropped(image, PROTOCOLS["promptir"])
    assert found.shape == (1, height - height % 16, width - width % 16)
    top, left = divmod(int(found[0, 0, 0]), width)
    assert (top, left) == (height % 16 // 2, width % 16 // 2)


@pytest.mark.parametrize(
    ("name", "size", "complaint"),
    [
        ("promptir", (15, 40), "15 x 40 pixels, cropped to multiples of 16"),
        ("histoformer", (40, 10), "needs 11 x 11"),
        ("weatherbench", (18, 40), "by 4 on each side"),
    ],
)
def test_images_smaller_than_the_window_are_refused(name: str, size: tuple[int, int], complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        cropped(torch.zeros(3, *size), PROTOCOLS[name])
    assert cropped(torch.zeros(3, 19, 19), PROTOCOLS[name]).numel()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_are_refused(value: float, which: int) -> None:
    images = pair()
    images[which][1, 3, 4] = value
    with pytest.raises(ImageError, match="holds NaN or infinity"):
        measure(*images, PROTOCOLS["promptir"])


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ImageError, match=r"\(3, 40, 53\).*\(3, 40, 52\)"):
        measure(pair()[0], pair(width=52)[1], PROTOCOLS["promptir"])


def test_a_clean_image_without_a_range_is_refused() -> None:
    with pytest.raises(ImageError, match="is constant"):
        measure(torch.rand(1, 20, 20), torch.ones(1, 20, 20), PROTOCOLS["amir"], "CT")


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(ImageError, match="units for PET, CT, MRI, not for 'rain'"):
        measure(*pair(channels=1), PROTOCOLS["amir"], "rain")
