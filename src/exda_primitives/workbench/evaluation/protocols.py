"""Protocols: what a repository does to its images before, between and after, down to the rounding.

PSNR and SSIM under two protocols are two different figures. Each protocol here says what the programs of one
repository do, as they were read there; where they leave something to chance it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from ...errors import ConfigError

BT601 = (65.481, 128.553, 24.966)
"""Weights of R, G and B in [0, 1] for a luma of 16 to 235, as MATLAB's rgb2ycbcr has them (ITU-R BT.601)."""


@dataclass(frozen=True)
class Window:
    """Window of SSIM (Z. Wang et al., TIP 2004), with K1 = 0.01 and K2 = 0.03, for each channel, then the mean.

    Attributes:
        shape: Gaussian of standard deviation 1.5, or uniform.
        size: side in pixels.
        sample_covariance: variances and the covariance are divided by n - 1 for n = size^2 pixels, as scikit-image
            does unless told otherwise, and not by n.
        zero_border: the image is continued by zeros and SSIM averaged over all its pixels; otherwise over those
            alone whose window lies inside of it.
    """

    shape: Literal["gaussian", "uniform"]
    size: int
    sample_covariance: bool
    zero_border: bool = False


@dataclass(frozen=True)
class NoiseRule:
    """How Gaussian noise is drawn, by ``numpy.random`` in the order (H, W, C), and added.

    Attributes:
        seeded: once for all images of all levels, or anew for each image, which then has the same noise as all
            others of its size.
        draws_all: the numbers of levels that are left out are drawn too, so that those of the next are the same as if
            they were not.
        as_bytes: the noisy image is cut to [0, 255] and its fractions are dropped (``astype(np.uint8)``); otherwise
            it stays a float image with values below 0 and above 1.
    """

    seeded: Literal["once", "each"]
    draws_all: bool
    as_bytes: bool


@dataclass(frozen=True)
class Units:
    """Of values that are no brightness.

    Attributes:
        values: that 0 and 1 stand for.
        shown: what is below or above is cut before the comparison.
    """

    values: tuple[float, float]
    shown: tuple[float, float]


@dataclass(frozen=True)
class Protocol:
    """One repository's way from a pair of images to two figures.

    Attributes:
        name: what the command line calls it.
        source: repository and files.
        window: of SSIM.
        crop: before anything else, images are cropped around their centre to multiples of this.
        as_bytes: results are rounded to 8 bits before the comparison, as the repository saves them as files.
        luma: weights of R, G and B for a luma of 16 to 235 that is compared in their place; None compares RGB.
        luma_as_bytes: luma is rounded to 8 bits, half a step upwards.
        border: pixels on each side that are not compared.
        noise: None where the repository adds none.
        units: degradation -> units, for those that have any; the range that figures refer to is then that of the clean
            image, its maximum less its minimum. All others refer to the range of 8 bits.
        note: what is left to chance, not computed here, or unexpected.
    """

    name: str
    source: str
    window: Window
    crop: int = 1
    as_bytes: bool = False
    luma: tuple[float, float, float] | None = None
    luma_as_bytes: bool = False
    border: int = 0
    noise: NoiseRule | None = None
    units: Mapping[str, Units] = field(default_factory=dict)
    note: str = ""


_SKIMAGE = Window("uniform", 7, sample_covariance=True)
_SKIMAGE_GAUSSIAN = Window("gaussian", 11, sample_covariance=True)
_WANG = Window("gaussian", 11, sample_covariance=False)
_FIXED_ORDER = NoiseRule("once", draws_all=True, as_bytes=True)

_ALL = (
    Protocol(
        name="promptir",
        source="va1shn9v/PromptIR: test.py, utils/dataset_utils.py, utils/val_utils.py (compute_psnr_ssim)",
        window=_SKIMAGE,
        crop=16,
        noise=_FIXED_ORDER,
        note="There, noise comes in the order of os.listdir, which is the file system's; here in that of the names.",
    ),
    Protocol(
        name="adair",
        source="c-yn/AdaIR: test.py, utils/dataset_utils.py, utils/val_utils.py (compute_psnr_ssim)",
        window=_SKIMAGE,
        crop=16,
        noise=_FIXED_ORDER,
        note="That of promptir; noise is in the order of os.listdir there, in that of the names here.",
    ),
    Protocol(
        name="moce-ir",
        source="eduardzamfir/MoCE-IR: src/test.py, src/data/dataset_utils.py (IRBenchmarks)",
        window=_SKIMAGE_GAUSSIAN,
        crop=16,
        noise=NoiseRule("once", draws_all=False, as_bytes=True),
        note="Noise comes in the order of the names, and of the levels that are tested in one go.",
    ),
    Protocol(
        name="moce-ir-cdd11",
        source="eduardzamfir/MoCE-IR: src/test.py, src/data/dataset_utils.py (CDD11)",
        window=_SKIMAGE_GAUSSIAN,
        note="As moce-ir, but without its crop.",
    ),
    Protocol(
        name="restormer-y",
        source="swz30/Restormer: Deraining/test.py, Deraining/evaluate_PSNR_SSIM.m",
        window=_WANG,
        as_bytes=True,
        luma=BT601,
        luma_as_bytes=True,
        note="rgb2ycbcr of bytes gives bytes; how MATLAB rounds exact halves is not documented.",
    ),
    Protocol(
        name="restormer-noise",
        source="swz30/Restormer: Denoising/test_gaussian_color_denoising.py, evaluate_gaussian_color_denoising.py, "
        "utils.py",
        window=_WANG,
        as_bytes=True,
        noise=NoiseRule("each", draws_all=False, as_bytes=False),
        note="The repository publishes PSNR alone; SSIM is that of its utils.py, whose call is commented out.",
    ),
    Protocol(
        name="histoformer",
        source="sunshangquan/Histoformer: Allweather/test_histoformer.py, Allweather/compute_psnr.py",
        window=Window("uniform", 11, sample_covariance=True),
        as_bytes=True,
        luma=(BT601[2], BT601[1], BT601[0]),
        note="OpenCV reads B, G, R and the weights are those of R, G, B: the luma has red and blue exchanged.",
    ),
    Protocol(
        name="weatherbench",
        source="guanqiyuan/WeatherBench: evaluation.py",
        window=_WANG,
        as_bytes=True,
        luma=BT601,
        border=4,
        note="There, results are read from JPEG files; here they are not compressed. LPIPS is not computed.",
    ),
    Protocol(
        name="amir",
        source="Yaziwel/All-In-One-Medical-Image-Restoration-via-Task-Adaptive-Routing: main_test_AMIR.py, "
        "evaluation/evaluation_metric.py, data/common.py",
        window=Window("gaussian", 11, sample_covariance=False, zero_border=True),
        units={
            "PET": Units((0.0, 20.0), (0.0, 20.0)),
            "CT": Units((-1024.0, 3071.0), (-160.0, 240.0)),
            "MRI": Units((0.0, 4095.0), (0.0, 4095.0)),
        },
        note="RMSE is not computed.",
    ),
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({each.name: each for each in _ALL})
"""Name -> protocol."""


def protocol_named(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ConfigError: if there is none.

    Example:
        >>> protocol_named("moce-ir").window
        Window(shape='gaussian', size=11, sample_covariance=True, zero_border=False)
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        close = get_close_matches(name, PROTOCOLS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no protocol is called {name!r}.{hint} There are: {', '.join(PROTOCOLS)}.") from None
