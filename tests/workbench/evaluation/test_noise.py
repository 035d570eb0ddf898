"""Noise with the very numbers that the repositories draw from numpy.random."""

import numpy as np
import pytest
import torch

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.evaluation import PROTOCOLS
from exda_primitives.workbench.evaluation.noise import Noise, is_noise, sigma_of

SIZES = [(7, 5), (6, 9)]


def images() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)) / 255


def truncated(clean: np.ndarray, sigma: int) -> np.ndarray:
    """Noise as PromptIR, AdaIR and MoCE-IR add it, truncated to bytes, from the next numbers of numpy.random."""
    return np.clip(clean + np.random.randn(*clean.shape) * sigma, 0, 255).astype(np.uint8)  # noqa: NPY002


@pytest.mark.parametrize("name", ["promptir", "adair", "moce-ir"])
def test_noise_that_is_seeded_once_and_truncated_to_bytes(name: str) -> None:
    np.random.seed(0)  # noqa: NPY002
    expected = [(sigma, image, truncated(image, sigma)) for sigma in (15, 25) for image in images()]
    noise = Noise(PROTOCOLS[name], seed=0)
    for sigma, clean, noisy in expected:
        assert torch.equal(noise.add(tensor(clean), sigma), tensor(noisy))


def test_noise_that_is_seeded_for_each_image_and_not_clipped() -> None:
    noise = Noise(PROTOCOLS["restormer-noise"], seed=0)
    for clean in images():
        image = np.float32(clean) / 255.0
        np.random.seed(seed=0)  # noqa: NPY002
        image += np.random.normal(0, 50 / 255.0, image.shape)  # noqa: NPY002
        found = noise.add(tensor(clean), 50)
        assert found.dtype == torch.float32
        assert np.array_equal(found.permute(1, 2, 0).numpy(), image)
        assert found.min() < 0
        assert found.max() > 1


@pytest.mark.parametrize(("name", "moves"), [("promptir", True), ("moce-ir", False), ("restormer-noise", False)])
def test_skipped_images_move_later_noise_as_in_the_repository(name: str, moves: bool) -> None:
    first, second = map(tensor, images())
    at_once, after = Noise(PROTOCOLS[name], seed=0), Noise(PROTOCOLS[name], seed=0)
    after.skip(first.shape)
    same = torch.equal(at_once.add(second, 25), after.add(second, 25))
    assert same != moves


def test_another_seed_gives_other_noise() -> None:
    clean = tensor(images()[0])
    zero, one = (Noise(PROTOCOLS["promptir"], seed).add(clean, 25) for seed in (0, 1))
    assert not torch.equal(zero, one)


def test_a_protocol_without_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="'histoformer' adds no noise"):
        Noise(PROTOCOLS["histoformer"], seed=0)


def test_noise_levels_by_name() -> None:
    assert sigma_of("noise15") == 15
    assert is_noise("noise50")
    assert not is_noise("noise")
    with pytest.raises(ConfigError, match="not 'rain'"):
        sigma_of("rain")
