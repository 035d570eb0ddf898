"""The networks to compare: original and patched with the same weights, at identity init and as if trained."""

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
"""Networks in their published configurations."""

BACKBONES: Mapping[str, Callable[[], nn.Module]] = {
    **{name: partial(create, name) for name in NAMED},
    # For trying the command: runs anywhere within seconds, but its figures say nothing about a real network.
    "restormer-tiny": partial(Restormer, dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
}

_SEED = 0


class Patched(NamedTuple):
    """Two copies of a network that has the primitives in its attentions.

    Attributes:
        identity: at identity init, so it computes what the original computes.
        trained: with new parameters as far from their start as training might bring them; see
            ``randomise_new_parameters``.
        report: what ``patch`` returned.
    """

    identity: nn.Module
    trained: nn.Module
    report: Report


class Networks:
    """One network on the CPU: unpatched and patched, each unfused and fused, made when first asked for.

    A network that is given patched already counts as the original.

    Args:
        original: the network, set to eval mode here; all others share its tensors.
        channels: channels of its images.
    """

    def __init__(self, original: nn.Module, channels: int = 3) -> None:
        self.original, self.channels = original.eval(), channels
        self._fused: dict[int, tuple[nn.Module, FusionReport]] = {}

    @classmethod
    def build(cls, backbone: str) -> Networks:
        """Builds one of `BACKBONES` in float32, with the same random weights at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return cls(BACKBONES[backbone]())

    @cached_property
    def patched(self) -> Patched | str:
        """The patched networks, or the reason why there are none."""
        if is_patched(self.original):
            return f"the network is patched already; {FUSED_ORIGINAL} runs it fused"
        identity = _sharing(self.original)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            try:
                report = patch(identity)
            except ExDAError as error:
                return f"it cannot be patched: {str(error).partition(chr(10))[0]}"
            trained = copy.deepcopy(identity, _themselves(self.original))
            randomise_new_parameters(trained)
        return Patched(identity, trained, report)

    @cached_property
    def report(self) -> Report:
        """The report of the patch; a dry run's if the original cannot be patched, or is patched already."""
        return self.patched.report if isinstance(self.patched, Patched) else plan(self.original)

    def of(self, variant: str, *, identity: bool = False) -> nn.Module:
        """Returns the network that a variant runs. It is shared: copy it, do not change it.

        Args:
            variant: a name in ``cases.VARIANTS``.
            identity: for a patched variant, return the network at identity init, not the one as if trained.

        Raises:
            ExDAError: this network has no such variant.
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
        """Returns the report of fusing the original.

        Raises:
            NoMatchError: ``fuse`` finds no block in it.
        """
        return self._fused_of(self.original)[1]

    def _fused_of(self, model: nn.Module) -> tuple[nn.Module, FusionReport]:
        if id(model) not in self._fused:
            # Kept, since recognising the blocks takes longer than most measurements.
            fused = _sharing(model)
            self._fused[id(model)] = fused, exda.fuse(fused)
        return self._fused[id(model)]

    @property
    def parameters(self) -> int:
        """The number of parameters of the original."""
        return sum(parameter.numel() for parameter in self.original.parameters())

    def macs(self, comparison: Comparison) -> int | None:
        """Counts the multiply-accumulates of one forward pass of the original, see ``count_macs``."""
        return count_macs(self.original, (comparison.batch, self.channels, comparison.height, comparison.width))

    def extra_macs(self, comparison: Comparison) -> int | None:
        """Returns the multiply-accumulates that the primitives add by the printed formulas; None if not known."""
        of_one = self.report.extra_macs(comparison.height, comparison.width)
        return None if of_one is None else comparison.batch * of_one


def count_macs(model: nn.Module, shape: tuple[int, int, int, int]) -> int | None:
    """Counts the multiply-accumulates of one forward pass for images of a shape (B, C, H, W).

    These are what PyTorch's counter knows: convolutions and matrix products, not Fourier transforms and sorts. None if
    the network cannot run on the meta device because its computation depends on values.
    """
    on_meta = copy.deepcopy(model).to("meta")
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            on_meta(torch.empty(shape, device="meta"))
    except Exception:
        return None
    # The counter counts two operations per multiply-accumulate.
    return counter.get_total_flops() // 2


def copy_for_variant(model: nn.Module, variant: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Returns a copy of ``model`` on the device in eval mode, fused if the variant is and ``model`` is not yet."""
    model = copy.deepcopy(model).to(device, dtype).eval()
    if variant in FUSING and not any(isinstance(module, FusedBlock) for module in model.modules()):
        exda.fuse(model)
    return model


def variant_backend(variant: str) -> AbstractContextManager[None]:
    """Selects, within a ``with`` block, the backend that a variant computes with."""
    return exda.backend(cast(Any, "auto" if variant in (*UNPATCHED, *FUSING) else variant))


def _sharing(model: nn.Module) -> nn.Module:
    """Returns a copy of a network that shares its parameters and buffers."""
    return copy.deepcopy(model, _themselves(model))


def _themselves(model: nn.Module) -> dict[int, Any]:
    """Returns a memo for ``deepcopy`` that keeps it from copying the tensors of ``model``."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


@torch.no_grad()
def randomise_new_parameters(model: nn.Module) -> None:
    """Gives all new parameters random values that hide no term of the formulas, as 0, 1 or all equal would."""
    new = {id(parameter) for parameter in new_parameters(model)}
    for name, parameter in model.named_parameters():
        if id(parameter) in new:
            parameter.copy_(_random(name.rpartition(".")[2], parameter))


def _random(name: str, parameter: Tensor) -> Tensor:
    # alpha = 0 removes the token output; a gate lam = 0 is the host's attention, lam = 1 the paper's.
    if name == "alpha":
        return torch.empty_like(parameter).uniform_(-1, 1)
    if name == "token_gate":
        return torch.empty_like(parameter).uniform_(0.2, 0.9)
    if parameter.ndim == 1:
        return torch.empty_like(parameter).uniform_(-0.1, 0.1)
    # A weight (out, in, ...) with variance 1 / fan-in keeps the scale of its input.
    return torch.randn_like(parameter) / parameter[0].numel() ** 0.5
