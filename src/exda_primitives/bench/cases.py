"""What is timed: network, variant, mode, number format and size; and why some of it cannot run here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import torch

from ..errors import ConfigError
from .precision import PRECISIONS

ORIGINAL = "original"
TRITON = "triton"
FUSED = "fused"
VARIANTS = (ORIGINAL, "reference", "torch", TRITON, FUSED)
"""The unpatched network; patched, computed by one of the backends; patched, each block as fused kernels."""

EAGER, COMPILED, CAPTURED = MODES = ("eager", "compiled", "captured")
"""As it is; by ``torch.compile``; as the replay of a CUDA graph."""

FORWARD, TRAINING = TASKS = ("forward", "training")

MULTIPLE_OF = 8
"""What the sides of an image have to be divisible by, in all networks here."""

_AMPERE = (8, 0)


@dataclass(frozen=True)
class Comparison:
    """What is equal for all cases that take turns in one loop.

    Attributes:
        backbone: a name in ``networks.BACKBONES``.
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
        return f"{self.width}x{self.height}"

    def __str__(self) -> str:
        return f"{self.backbone} {self.task} {self.precision} {self.batch} x {self.size}"


@dataclass(frozen=True)
class Case:
    """One of the things that are compared."""

    comparison: Comparison
    variant: str
    mode: str

    def __str__(self) -> str:
        return f"{self.comparison} {self.variant} {self.mode}"


def comparisons(
    backbones: Iterable[str],
    tasks: Iterable[str],
    precisions: Iterable[str],
    batch: int,
    sizes: Iterable[tuple[int, int]],
) -> list[Comparison]:
    """All combinations; those that share a reference follow each other.

    Args:
        backbones: names.
        tasks: names.
        precisions: names.
        batch: images at a time.
        sizes: (height, width).
    """
    return [
        Comparison(backbone, task, precision, batch, height, width)
        for backbone, (height, width), task, precision in product(backbones, sizes, tasks, precisions)
    ]


def cases_of(comparison: Comparison, variants: Iterable[str], modes: Iterable[str]) -> list[Case]:
    """The cases of a comparison, the original first."""
    wanted = {ORIGINAL, *variants}
    return [Case(comparison, variant, mode) for variant in VARIANTS if variant in wanted for mode in modes]


def parse_size(text: str) -> tuple[int, int]:
    """``"256"`` or ``"3840x2160"`` (width x height) as (height, width).

    Raises:
        ConfigError: for anything else, and for sides that the networks cannot take.
    """
    width, times, height = text.partition("x")
    sides = (height if times else width, width)
    if not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(f"{text!r} is no size; write 256 or 3840x2160 (width x height)")
    if any(int(side) % MULTIPLE_OF for side in sides):
        raise ConfigError(f"{text!r}: the networks take sides that are multiples of {MULTIPLE_OF}")
    return int(sides[0]), int(sides[1])


def why_not(case: Case, device: torch.device) -> str | None:
    """Why a case cannot run on this device, or None where it should."""
    training, cuda = case.comparison.task == TRAINING, device.type == "cuda"
    format_ = PRECISIONS[case.comparison.precision]
    kernels = case.variant in (TRITON, FUSED)
    reasons = {
        f"{case.variant}: no CUDA device": kernels and not cuda,
        "captured: no CUDA device": case.mode == CAPTURED and not cuda,
        "captured: the forward pass alone": case.mode == CAPTURED and training,
        "tf32: no CUDA device": format_.tf32 and not cuda,
    }
    # The kernels would hand over to PyTorch's without a word.
    modern = {
        case.variant: case.variant in (TRITON, FUSED),
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
