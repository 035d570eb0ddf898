"""The networks: original and patched with the same weights, at the identity start and as if trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import exda_primitives as exda

from ...errors import ExDAError
from ...fusion import FusionReport
from ...fusion.block import FusedBlock
from ...models import Restormer, create
from ...patching import Report, is_patched, new_parameters, patch, plan
from .cases import FUSED_ORIGINAL, FUSING, UNPATCHED, Comparison

NAMED = ("restormer", "promptir", "adair", "histoformer")
"""In their published configurations."""

BACKBONES: Mapping[str, Callable[[], nn.Module]] = {
    **{name: partial(create, name) for name in NAMED},
    # Runs anywhere within seconds; its figures say nothing about a network that anybody uses.
    "restormer-tiny": partial(Restormer, dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
}

_SEED = 0


class Patched(NamedTuple):
    """A network with the primitives in its attentions, twice.

    Attributes:
        identity: computes what it did before.
        trained: with new parameters as far from their start as training might bring them.
        report: of the patch.
    """

    identity: nn.Module
    trained: nn.Module
    report: Report


class Networks:
    """One network, unpatched and patched, as it is and fused, on the CPU; each is made when it is first asked for.

    Where the network given is patched already, it is itself what is called the original here.

    Args:
        original: the network; all others share its tensors.
        channels: of its images.
    """

    def __init__(self, original: nn.Module, channels: int = 3) -> None:
        self.original, self.channels = original.eval(), channels
        self._fused: dict[int, tuple[nn.Module, FusionReport]] = {}

    @classmethod
    def build(cls, backbone: str) -> Networks:
        """One of `BACKBONES`, in float32: the same weights at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return cls(BACKBONES[backbone]())

    @cached_property
    def patched(self) -> Patched | str:
        """The network patched, or why it cannot be."""
        if is_patched(self.original):
            return f"it has the primitives already: {FUSED_ORIGINAL} is the same, fused"
        identity = _sharing(self.original)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            try:
                report = patch(identity)
            except ExDAError as error:
                return f"it cannot be patched: {str(error).partition(chr(10))[0]}"
            trained = copy.deepcopy(identity, _themselves(self.original))
            move_away(trained)
        return Patched(identity, trained, report)

    @cached_property
    def report(self) -> Report:
        """What a patch adds to the original, whether it has been patched or not."""
        return self.patched.report if isinstance(self.patched, Patched) else plan(self.original)

    def of(self, variant: str, *, identity: bool = False) -> nn.Module:
        """The network that a variant computes with; to be copied, not changed.

        Args:
            variant: a name in ``cases.VARIANTS``.
            identity: of a patched one, that at the identity start.

        Raises:
            ExDAError: for one that cannot be made of this network.
        """
        model = self.original
        if variant not in UNPATCHED:
            if isinstance(self.patched, str):
                raise ExDAError(self.patched)
            model = self.patched.identity if identity else self.patched.trained
        if variant not in FUSING:
            return model
        return self._fused_of(model)[0]

    def fusion(self) -> FusionReport:
        """What ``fuse`` takes of the original.

        Raises:
            NoMatchError: where that is nothing.
        """
        return self._fused_of(self.original)[1]

    def _fused_of(self, model: nn.Module) -> tuple[nn.Module, FusionReport]:
        if id(model) not in self._fused:
            # Recognising the blocks takes longer than most measurements.
            fused = _sharing(model)
            self._fused[id(model)] = fused, exda.fuse(fused)
        return self._fused[id(model)]

    @property
    def parameters(self) -> int:
        """Of the original."""
        return sum(parameter.numel() for parameter in self.original.parameters())

    def macs(self, comparison: Comparison) -> int | None:
        """Multiply-accumulates of one forward pass of the original.

        Those of convolutions and matrix products, as PyTorch's own counter has them; not Fourier transforms and sorts.
        None where the network cannot be run without numbers, for what it computes depends on them.
        """
        original = copy.deepcopy(self.original).to("meta")
        image = torch.empty(comparison.batch, self.channels, comparison.height, comparison.width, device="meta")
        counter = FlopCounterMode(display=False)
        try:
            with counter, torch.no_grad():
                original(image)
        except Exception:
            return None
        # The counter has two operations for each of them.
        return counter.get_total_flops() // 2

    def extra_macs(self, comparison: Comparison) -> int | None:
        """Multiply-accumulates that the primitives add to it, by the printed formulas."""
        of_one = self.report.extra_macs(comparison.height, comparison.width)
        return None if of_one is None else comparison.batch * of_one


def ready(model: nn.Module, variant: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy of ``model`` on the device, as the variant has it; one that is fused already is taken as it is."""
    model = copy.deepcopy(model).to(device, dtype).eval()
    if variant in FUSING and not any(isinstance(module, FusedBlock) for module in model.modules()):
        exda.fuse(model)
    return model


def computing(variant: str) -> AbstractContextManager[None]:
    """The backend that a variant computes with."""
    return exda.backend(cast(Any, "auto" if variant in (*UNPATCHED, *FUSING) else variant))


def _sharing(model: nn.Module) -> nn.Module:
    """Another network with the very tensors of this one."""
    return copy.deepcopy(model, _themselves(model))


def _themselves(model: nn.Module) -> dict[int, Any]:
    """For ``deepcopy``: tensors that are copied as themselves."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


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
