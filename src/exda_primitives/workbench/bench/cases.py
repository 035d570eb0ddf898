"""What is timed: network, variant, mode, number format and size; and why some of it cannot run here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

import torch

from ...errors import ConfigError
from ...extras import install_line
from .precision import PRECISIONS

ORIGINAL = "original"
REFERENCE = "reference"
TRITON = "triton"
FUSED = "fused"
FUSED_ORIGINAL = "fused-original"
AUTO = "auto"
VARIANTS = (ORIGINAL, REFERENCE, "torch", TRITON, AUTO, FUSED, FUSED_ORIGINAL)
"""The unpatched network; patched, computed by one of the backends; patched, each block as fused kernels; the unpatched
network, each block as fused kernels."""

FUSING = (FUSED, FUSED_ORIGINAL)
UNPATCHED = (ORIGINAL, FUSED_ORIGINAL)

EAGER, COMPILED, CAPTURED, ONNX = MODES = ("eager", "compiled", "captured", "onnxruntime")
"""As it is; by ``torch.compile``; as the replay of a CUDA graph; by onnxruntime, exported by ``torch.onnx``."""

FORWARD, TRAINING = TASKS = ("forward", "training")

MULTIPLE_OF = 8
"""What the sides of an image have to be divisible by, in all networks here."""

LARGE = 2048 * 2048
"""Pixels of an image from which on a comparison waits until all smaller ones are done."""

_AMPERE = (8, 0)


@dataclass(frozen=True)
class Comparison:
    """What is equal for all cases that take turns in one loop.

    Attributes:
        backbone: a name in ``networks.BACKBONES``, or what a network of somebody's own is called.
        task: ``"forward"`` or ``"training"``.
        precision: a name in ``precision.PRECISIONS``.
        batch: images at a time.
        height: in pixels.
        width: in pixels.
    """

    backbone: str
    task: str
    precision: str
    batch: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Of all images of a batch."""
        return self.batch * self.height * self.width

    @property
    def size(self) -> str:
        """Width x height."""
        return size_text((self.height, self.width))

    def __str__(self) -> str:
        return f"{self.backbone} {self.task} {self.precision} {self.batch} x {self.size}"


@dataclass(frozen=True)
class Case:
    """One of the things that are compared."""

    comparison: Comparison
    variant: str
    mode: str

    @property
    def patched(self) -> bool:
        """Whether it has the primitives."""
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
    """All combinations, the most telling first; those that share a reference follow each other.

    The first network forward at the sizes as they are given, then the other networks, then training, and at last, in
    the same order, whatever has `LARGE` pixels or more.

    Args:
        backbones: names.
        tasks: names.
        precisions: names.
        batch: images at a time.
        sizes: (height, width), the most telling first.
    """
    every = [
        Comparison(backbone, task, precision, batch, height, width)
        for task, backbone, (height, width), precision in product(tasks, backbones, sizes, precisions)
    ]
    return sorted(every, key=lambda each: each.height * each.width >= LARGE)


def cases_of(comparison: Comparison, variants: Iterable[str], modes: Iterable[str]) -> list[Case]:
    """The cases of a comparison, the original first."""
    wanted = {ORIGINAL, *variants}
    return [Case(comparison, variant, mode) for variant in VARIANTS if variant in wanted for mode in modes]


def parse_size(text: str) -> tuple[int, int]:
    """``"256"`` or ``"3840x2160"`` (width x height) as (height, width).

    Raises:
        ConfigError: for anything else.
    """
    width, times, height = text.partition("x")
    sides = (height if times else width, width)
    if not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"{text!r} is no size; write 256 or 3840x2160 (width x height)")
    return int(sides[0]), int(sides[1])


def padded(size: tuple[int, int], multiple: int = MULTIPLE_OF) -> tuple[int, int]:
    """The smallest size that a network takes and an image of this one fits into: (height, width)."""
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as width x height."""
    return f"{size[1]}x{size[0]}"


def skip_reason(case: Case, device: torch.device) -> str | None:
    """Why a case cannot run on this device, or None where it should."""
    training, cuda = case.comparison.task == TRAINING, device.type == "cuda"
    format_ = PRECISIONS[case.comparison.precision]
    reasons = {
        f"{case.variant}: no CUDA device": case.variant == TRITON and not cuda,
        f"{AUTO}: computes as torch does on CUDA and in training": case.variant == AUTO and (cuda or training),
        "captured: no CUDA device": case.mode == CAPTURED and not cuda,
        f"{case.mode}: the forward pass alone": case.mode in (CAPTURED, ONNX) and training,
        f"onnxruntime: of {case.variant} there is no export": case.mode == ONNX and case.variant in (TRITON, *FUSING),
        f"onnxruntime: not installed; run: {install_line('onnx')}": case.mode == ONNX and not _has_onnxruntime(),
        "tf32: no CUDA device": format_.tf32 and not cuda,
    }
    # The kernels would hand over to PyTorch's without a word.
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


def _has_onnxruntime() -> bool:
    return all(find_spec(package) is not None for package in ("onnxruntime", "onnxscript"))
