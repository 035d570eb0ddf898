"""PSNR and SSIM as the repositories compute them, in NumPy and SciPy with float64, made without the code under test.

Images are (H, W, C) in [0, 1]; each function below says in full what a repository does with a pair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.signal import convolve2d

Array = NDArray[Any]


def psnr(a: Array, b: Array, extent: float = 1.0) -> float:
    return float(10 * np.log10(extent**2 / np.mean((a - b) ** 2)))


def gauss() -> Array:
    x, y = np.mgrid[-5:6, -5:6]
    bell = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    return bell / bell.sum()


def similarity(a: Array, b: Array, smooth: Any, pixels: int, unbiased: bool, extent: float = 1.0) -> Array:
    """SSIM's map of one channel."""
    c1, c2 = (0.01 * extent) ** 2, (0.03 * extent) ** 2
    u, v = smooth(a), smooth(b)
    n = pixels / (pixels - 1) if unbiased else 1.0
    uu, vv, uv = n * (smooth(a * a) - u * u), n * (smooth(b * b) - v * v), n * (smooth(a * b) - u * v)
    return ((2 * u * v + c1) * (2 * uv + c2)) / ((u**2 + v**2 + c1) * (uu + vv + c2))


def uniform_ssim(a: Array, b: Array, size: int) -> float:
    """SSIM of scikit-image: a uniform window, sample covariance, the border left out."""
    edge = size // 2
    maps = [
        similarity(a[..., c], b[..., c], lambda x: uniform_filter(x, size), size**2, True)[edge:-edge, edge:-edge]
        for c in range(a.shape[-1])
    ]
    return float(np.mean(maps))


def gaussian_ssim(a: Array, b: Array, unbiased: bool, mode: str = "valid", extent: float = 1.0) -> float:
    """SSIM with a Gaussian window of 11 x 11; ``mode`` "same" pads with zeros."""
    window = gauss()
    maps = [
        similarity(a[..., c], b[..., c], lambda x: convolve2d(x, window, mode), 121, unbiased, extent)
        for c in range(a.shape[-1])
    ]
    return float(np.mean(maps))


def as_bytes(image: Array) -> Array:
    """scikit-image's ``img_as_ubyte``."""
    return np.clip(np.rint(image.astype(np.float32) * np.float32(255)), 0, 255).astype(np.uint8)


def promptir(a: Array, b: Array) -> tuple[float, float]:
    a, b = np.clip(a, 0, 1).astype(np.float64), b.astype(np.float64)
    return psnr(a, b), uniform_ssim(a, b, 7)


def moce_ir(a: Array, b: Array) -> tuple[float, float]:
    a, b = np.clip(a, 0, 1).astype(np.float64), b.astype(np.float64)
    return psnr(a, b), gaussian_ssim(a, b, True)


def restormer_noise(a: Array, b: Array) -> tuple[float, float]:
    x, y = as_bytes(a).astype(np.float64), as_bytes(b).astype(np.float64)
    return psnr(x, y, 255), gaussian_ssim(x, y, False, extent=255)


def matlab_luma(image: Array) -> Array:
    """The luma of MATLAB's ``rgb2ycbcr`` for uint8, whose result is uint8, in whole numbers."""
    red, green, blue = (as_bytes(image)[..., c].astype(np.int64) for c in range(3))
    return ((65481 * red + 128553 * green + 24966 * blue + 127500) // 255000 + 16)[..., None].astype(np.float64)


def restormer_y(a: Array, b: Array) -> tuple[float, float]:
    x, y = matlab_luma(a), matlab_luma(b)
    return psnr(x, y, 255), gaussian_ssim(x, y, False, extent=255)


def histoformer(a: Array, b: Array) -> tuple[float, float]:
    def luma(image: Array) -> Array:
        # As the repository has it: the weights of red, green, blue on blue, green, red.
        blue_first = as_bytes(image)[..., ::-1].astype(np.float64)
        return (blue_first @ np.array([65.481, 128.553, 24.966]) / 255 + 16)[..., None] / 255

    return psnr(luma(a), luma(b)), uniform_ssim(luma(a), luma(b), 11)


def weatherbench(a: Array, b: Array) -> tuple[float, float]:
    def luma(image: Array) -> Array:
        blue_first = as_bytes(image)[..., ::-1].astype(np.float64)
        return (blue_first @ np.array([24.966, 128.553, 65.481]) / 255 + 16)[4:-4, 4:-4, None]

    return psnr(luma(a), luma(b), 255), gaussian_ssim(luma(a), luma(b), False, extent=255)


def amir_ct(a: Array, b: Array) -> tuple[float, float]:
    def hounsfield(image: Array) -> Array:
        return np.clip(np.clip(image.astype(np.float64) * 4095 - 1024, -1024, 3071), -160, 240)

    x, y = hounsfield(a), hounsfield(b)
    extent = y.max() - y.min()
    return psnr(x, y, extent), gaussian_ssim(x, y, False, "same", extent)


BY_NAME = {
    "promptir": promptir,
    "adair": promptir,
    "moce-ir": moce_ir,
    "moce-ir-cdd11": moce_ir,
    "restormer-y": restormer_y,
    "restormer-noise": restormer_noise,
    "histoformer": histoformer,
    "weatherbench": weatherbench,
    "amir": amir_ct,
}
