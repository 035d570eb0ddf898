"""The networks: original and patched with the same weights, at the identity start and as if trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import exda_primitives as exda

from ..models import Restormer, create
from ..patching import Report, new_parameters, patch
from .cases import FUSED, ORIGINAL, Comparison

NAMED = ("restormer", "promptir", "adair", "histoformer")
"""In their published configurations."""

BACKBONES: Mapping[str, Callable[[], nn.Module]] = {
    **{name: partial(create, name) for name in NAMED},
    # Runs anywhere within seconds; its figures say nothing about a network that anybody uses.
    "restormer-tiny": partial(Restormer, dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
}

_SEED = 0


@dataclass(frozen=True)
class Networks:
    """One backbone, three times, on the CPU in float32.

    Attributes:
        original: with random weights.
        identity: the same, patched; computes the same function.
        trained: the same, patched, with new parameters as far from their start as training might bring them.
        report: of the patch.
    """

    original: nn.Module
    identity: nn.Module
    trained: nn.Module
    report: Report

    @classmethod
    def build(cls, backbone: str) -> Networks:
        """The same weights at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            original = BACKBONES[backbone]()
            identity = copy.deepcopy(original)
            report = patch(identity)
            trained = copy.deepcopy(identity)
            move_away(trained)
        return cls(original, identity, trained, report)

    @property
    def parameters(self) -> int:
        """Of the original."""
        return sum(parameter.numel() for parameter in self.original.parameters())

    def macs(self, comparison: Comparison) -> int:
        """Multiply-accumulates of one forward pass of the original.

        Those of convolutions and matrix products, as PyTorch's own counter has them; not Fourier transforms and sorts.
        """
        original = copy.deepcopy(self.original).to("meta")
        image = torch.empty(comparison.batch, 3, comparison.height, comparison.width, device="meta")
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            original(image)
        # The counter has two operations for each of them.
        return counter.get_total_flops() // 2

    def extra_macs(self, comparison: Comparison) -> int | None:
        """Multiply-accumulates that the primitives add to it, by the printed formulas."""
        of_one = self.report.extra_macs(comparison.height, comparison.width)
        return None if of_one is None else comparison.batch * of_one


def ready(model: nn.Module, variant: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of ``model`` on the device, as the variant has it."""
    model = copy.deepcopy(model).to(device, dtype).eval()
    if variant == FUSED:
        exda.fuse(model)
    return model


def computing(variant: str) -> AbstractContextManager[None]:
    """The backend that a variant computes with."""
    return exda.backend(cast(Any, "auto" if variant in (ORIGINAL, FUSED) else variant))


@torch.no_grad()
def move_away(model: nn.Module) -> None:
    """Gives all new parameters random values, none of which hides a term of the formulas (0, 1, all equal)."""
    new = {id(parameter) for parameter in new_parameters(model)}
    for name, parameter in model.named_parameters():
        if id(parameter) in new:
            parameter.copy_(_random(name.rpartition(".")[2], parameter))


def _random(name: str, parameter: Tensor) -> Tensor:
    if name == "alpha":
        return torch.empty_like(parameter).uniform_(-1, 1)
    if name == "token_gate":
        return torch.empty_like(parameter).uniform_(0.2, 0.9)
    if parameter.ndim == 1:
        return torch.empty_like(parameter).uniform_(-0.1, 0.1)
    return torch.randn_like(parameter) / parameter[0].numel() ** 0.5
