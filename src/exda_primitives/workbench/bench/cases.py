"""Describes what is timed (network, variant, mode, number format, size), and why a case cannot run here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import torch

from ...errors import ConfigError
from ...extras import install_line
from ..shared.padding import round_up
from .precision import PRECISIONS

ORIGINAL = "original"
REFERENCE = "reference"
TRITON = "triton"
FUSED = "fused"
FUSED_ORIGINAL = "fused-original"
AUTO = "auto"
VARIANTS = (ORIGINAL, REFERENCE, "torch", TRITON, AUTO, FUSED, FUSED_ORIGINAL)
"""``original``: the unpatched network. ``reference``, ``torch``, ``triton``, ``auto``: patched, computed by this
backend. ``fused``: patched, its blocks fused. ``fused-original``: unpatched, its blocks fused."""

FUSING = (FUSED, FUSED_ORIGINAL)
UNPATCHED = (ORIGINAL, FUSED_ORIGINAL)

EAGER, COMPILED, CAPTURED, ONNX, OPENVINO = MODES = ("eager", "compiled", "captured", "onnxruntime", "openvino")
"""Eager PyTorch; ``torch.compile``; the replay of a CUDA graph; exported by ``torch.onnx`` and run by onnxruntime or
OpenVINO."""

EXPORTED = (ONNX, OPENVINO)
"""Modes in which another program runs the network, exported by ``torch.onnx``."""
_PACKAGES = {ONNX: ("onnxruntime", "onnxscript"), OPENVINO: ("openvino", "onnxscript")}
_EXTRAS = {ONNX: "onnx", OPENVINO: "openvino"}

FORWARD, TRAINING = TASKS = ("forward", "training")

MULTIPLE_OF = 8
"""The sides of an image have to be divisible by this number in all networks here."""

LARGE = 2048 * 2048
"""Pixels. Comparisons on images of this size or larger run after all smaller ones."""

_AMPERE = (8, 0)


@dataclass(frozen=True)
class Comparison:
    """The settings shared by all cases that are timed in turn.

    Attributes:
        backbone: a name in ``networks.BACKBONES``, or the user's name for a network of their own.
        task: ``"forward"`` or ``"training"``.
        precision: a name in ``precision.PRECISIONS``.
        batch: images per pass.
        height: height of an image in pixels.
        width: width of an image in pixels.
    """

    backbone: str
    task: str
    precision: str
    batch: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """The number of pixels in the whole batch."""
        return self.batch * self.height * self.width

    @property
    def size(self) -> str:
        """The image size as text, width x height."""
        return size_text((self.height, self.width))

    def __str__(self) -> str:
        return f"{self.backbone} {self.task} {self.precision} {self.batch} x {self.size}"


@dataclass(frozen=True)
class Case:
    """One variant in one mode: what is checked and timed."""

    comparison: Comparison
    variant: str
    mode: str

    @property
    def patched(self) -> bool:
        """Whether the network has the primitives."""
        return self.variant not in UNPATCHED

    def __str__(self) -> str:
        return f"{self.comparison} {self.variant} {self.mode}"


def comparisons(
    backbones: Iterable[str],
    tasks: Iterable[str],
    precisions: Iterable[str],
    batch: int,
    sizes: Iterable[tuple[int, int]],
) -> list[Comparison]:
    """Returns all combinations, the most informative first.

    Sorted by task, then network, then size, each in the order given; images of `LARGE` pixels or more come last, in
    the same order. Comparisons that differ only in number format are neighbours, as they share a float64 reference.

    Args:
        backbones: names of networks.
        tasks: ``"forward"``, ``"training"`` or both.
        precisions: names of number formats.
        batch: images per pass.
        sizes: (height, width) in pixels, the most informative first.
    """
    every = [
        Comparison(backbone, task, precision, batch, height, width)
        for task, backbone, (height, width), precision in product(tasks, backbones, sizes, precisions)
    ]
    # The sort is stable, so it only moves the large images to the end.
    return sorted(every, key=lambda each: each.height * each.width >= LARGE)


def cases_of(comparison: Comparison, variants: Iterable[str], modes: Iterable[str]) -> list[Case]:
    """Returns the cases of a comparison; the original is always included, and comes first."""
    wanted = {ORIGINAL, *variants}
    return [Case(comparison, variant, mode) for variant in VARIANTS if variant in wanted for mode in modes]


def parse_size(text: str) -> tuple[int, int]:
    """Reads ``"256"`` or ``"3840x2160"`` (width x height) and returns (height, width).

    Raises:
        ConfigError: the text has another form.
    """
    width, times, height = text.partition("x")
    sides = (height if times else width, width)
    if not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"{text!r} is no size; write 256 or 3840x2160 (width x height)")
    return int(sides[0]), int(sides[1])


def padded(size: tuple[int, int], multiple: int = MULTIPLE_OF) -> tuple[int, int]:
    """Rounds both sides up to the next multiple, the smallest size that a network accepts: (height, width)."""
    height, width = (round_up(side, multiple) for side in size)
    return height, width


def size_text(size: tuple[int, int]) -> str:
    """Returns a (height, width) as the text ``WIDTHxHEIGHT``."""
    return f"{size[1]}x{size[0]}"


def skip_reason(case: Case, device: torch.device) -> str | None:
    """Returns why a case cannot run on this device, or None if it can."""
    training, cuda = case.comparison.task == TRAINING, device.type == "cuda"
    format_ = PRECISIONS[case.comparison.precision]
    reasons = {
        f"{case.variant}: no CUDA device": case.variant == TRITON and not cuda,
        f"{AUTO}: the same as torch on CUDA and in training": case.variant == AUTO and (cuda or training),
        "captured: no CUDA device": case.mode == CAPTURED and not cuda,
        f"{case.mode}: only for the forward pass": case.mode in (CAPTURED, *EXPORTED) and training,
        f"{case.mode}: cannot run {case.variant} (no export)": case.mode in EXPORTED
        and case.variant in (TRITON, *FUSING),
        f"{OPENVINO}: only for float32 on a CPU": case.mode == OPENVINO and (cuda or format_.dtype != torch.float32),
        f"{case.mode}: not installed; run: {install_line(_EXTRAS.get(case.mode, ''))}": not installed(case.mode),
        "tf32: no CUDA device": format_.tf32 and not cuda,
    }
    # Below this capability the Triton kernels silently fall back to PyTorch's: the figures would be of other code.
    modern = {
        case.variant: case.variant in (TRITON, *FUSING),
        format_.name: format_.tf32 or format_.dtype == torch.bfloat16,
    }
    if cuda and any(modern.values()):
        capability = torch.cuda.get_device_capability(device)
        reasons |= {
            f"{name}: needs a GPU of capability 8.0, this one has {'.'.join(map(str, capability))}": asked
            for name, asked in modern.items()
            if capability < _AMPERE
        }
    return next((reason for reason, holds in reasons.items() if holds), None)


def installed(mode: str) -> bool:
    """Whether the packages are installed that a mode needs besides PyTorch."""
    return all(find_spec(package) is not None for package in _PACKAGES.get(mode, ()))
