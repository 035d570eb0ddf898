"""Protocols: all that a repository does to images from reading them to PSNR and SSIM, down to the rounding.

PSNR and SSIM by different protocols cannot be compared. Each protocol here follows the programs of one repository, as
read in their source, and notes where these leave something to chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from ...errors import ConfigError

BT601 = (65.481, 128.553, 24.966)
"""Weights of R, G and B in [0, 1] for a luma from 16 to 235, as in MATLAB's rgb2ycbcr (ITU-R BT.601)."""


@dataclass(frozen=True)
class Window:
    """The window of SSIM (Z. Wang et al., TIP 2004; K1 = 0.01, K2 = 0.03); SSIM is averaged over the channels.

    Attributes:
        shape: Gaussian with standard deviation 1.5, or uniform.
        size: side in pixels.
        sample_covariance: True divides variances and covariance by n - 1 for n = size^2 pixels, scikit-image's
            default; False divides by n.
        zero_border: True pads the image with zeros and averages SSIM over all pixels; False averages only over pixels
            whose window is inside the image.
    """

    shape: Literal["gaussian", "uniform"]
    size: int
    sample_covariance: bool
    zero_border: bool = False


@dataclass(frozen=True)
class NoiseRule:
    """How Gaussian noise is drawn, by ``numpy.random`` in the order (H, W, C), and added.

    Attributes:
        seeded: ``"once"`` seeds the generator once for all images of all levels; ``"each"`` before each image, so that
            all images of one size have the same noise.
        draws_all: True draws also the numbers of levels that are not evaluated, so that the following levels get the
            same noise whether these are or not.
        as_bytes: True clips the noisy image to [0, 255] and drops fractions (``astype(np.uint8)``); False keeps floats,
            also below 0 and above 1.
    """

    seeded: Literal["once", "each"]
    draws_all: bool
    as_bytes: bool


@dataclass(frozen=True)
class Units:
    """Physical units of an image whose values are not brightness.

    Attributes:
        values: the physical values that 0 and 1 stand for.
        shown: lowest and highest physical value; others are clipped before the comparison.
    """

    values: tuple[float, float]
    shown: tuple[float, float]


@dataclass(frozen=True)
class Protocol:
    """One repository's procedure from a pair of images to PSNR and SSIM.

    Attributes:
        name: name on the command line.
        source: repository and files that it was read in.
        window: window of SSIM.
        crop: images are first cropped around their centre to multiples of this number of pixels.
        as_bytes: restored images are rounded to 8 bits before the comparison, since the repository saves them as files.
        luma: weights of R, G and B for a luma from 16 to 235 that is compared in place of RGB; None compares RGB.
        luma_as_bytes: luma is rounded to 8 bits, halves upwards.
        border: pixels on each side that are not compared.
        noise: how noise is added; None if the repository adds none.
        units: degradation -> physical units, where there are any. The data range is then the clean image's maximum
            minus its minimum; otherwise it is that of 8 bits.
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

PLAIN = Protocol(
    name="plain",
    source="this library",
    window=_WANG,
    note="PSNR over R, G and B together, range 1, clipped, not rounded; SSIM of each channel, Gaussian window of 11 "
    "pixels",
)
"""What this library's own figures are measured by, where no repository's are compared; not on the command line."""

_ALL = (
    Protocol(
        name="promptir",
        source="va1shn9v/PromptIR: test.py, utils/dataset_utils.py, utils/val_utils.py (compute_psnr_ssim)",
        window=_SKIMAGE,
        crop=16,
        noise=_FIXED_ORDER,
        note="There, noise is drawn in the order of os.listdir, which is the file system's; here in that of the names.",
    ),
    Protocol(
        name="adair",
        source="c-yn/AdaIR: test.py, utils/dataset_utils.py, utils/val_utils.py (compute_psnr_ssim)",
        window=_SKIMAGE,
        crop=16,
        noise=_FIXED_ORDER,
        note="As promptir: noise is drawn in the order of os.listdir there, in that of the names here.",
    ),
    Protocol(
        name="moce-ir",
        source="eduardzamfir/MoCE-IR: src/test.py, src/data/dataset_utils.py (IRBenchmarks)",
        window=_SKIMAGE_GAUSSIAN,
        crop=16,
        noise=NoiseRule("once", draws_all=False, as_bytes=True),
        note="Noise is drawn in the order of the names, and depends on which levels are tested in one go.",
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
    """Returns the protocol of that name.

    Raises:
        ConfigError: there is none.

    Examples:
        >>> protocol_named("moce-ir").window
        Window(shape='gaussian', size=11, sample_covariance=True, zero_border=False)
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        close = get_close_matches(name, PROTOCOLS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no protocol is called {name!r}.{hint} There are: {', '.join(PROTOCOLS)}.") from None
