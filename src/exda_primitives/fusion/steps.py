"""What a transformer block is made of: steps ``x + function(norm(x))``, by the names of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar

from torch import Tensor, nn

from ..ops import dispatch, kernels
from ..ops.bare import does_more
from ..ops.cpu.layout import in_layout
from ..ops.terms import FusedTerms, GatedTerms, NormTerms
from ..primitives import ExDAAttention
from ..primitives.fused import fused_terms
from .portrait import Portrait, difference


def part_of(block: nn.Module, name: str) -> nn.Module:
    """The module that has this name in the block."""
    part = block
    for key in name.split("."):
        child = part._modules[key]
        assert child is not None
        part = child
    return part


@dataclass(frozen=True)
class NormForm:
    """A layer normalisation over channels: where its parameters are in the module, and what it does with them.

    Attributes:
        weight: attribute path of (C,), None for none.
        bias: likewise.
        subtract_mean: whether it subtracts the mean.
        eps: that it adds to the variance.
    """

    weight: str | None
    bias: str | None
    subtract_mean: bool
    eps: float

    def terms(self, module: nn.Module) -> NormTerms:
        """Of the norm that has this form."""
        weight, bias = (None if path is None else attrgetter(path)(module) for path in (self.weight, self.bias))
        return NormTerms(weight, bias, self.subtract_mean, self.eps)


@dataclass(frozen=True)
class Step:
    """``x + function(norm(x))`` where kernels compute the norm, and a module all else.

    Attributes:
        norm: name of the block's child, or of a part of it (``norms.0``).
        function: likewise.
        form: of the norm.
        norm_seen: what the norm was recognised in.
        function_seen: likewise; None where nothing is known of it, or where it is ExDA's attention by itself.
    """

    norm: str
    function: str
    form: NormForm
    norm_seen: Portrait
    function_seen: Portrait | None

    kind: ClassVar[str] = "any function"
    covers_function: ClassVar[bool] = False
    """Whether kernels compute the function as well."""

    def __call__(self, block: nn.Module, x: Tensor, given: Tensor, last: bool = True) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W).

        Args:
            block: of which this is a step.
            x: output of the step before.
            given: to the block; modules, and whoever calls the block, get maps in its layout.
            last: whether it is the block's last step.
        """
        norm, function = part_of(block, self.norm), part_of(block, self.function)
        if not dispatch.fuses() or self.obstacle(block, x):
            x = in_layout(x, given)
            return x + function(norm(x))
        return self._on_kernels(x, self.form.terms(norm), function, given if last else None)

    def obstacle(self, block: nn.Module, x: Tensor) -> str | None:
        """Why kernels cannot compute this step; None if they can."""
        norm, function = part_of(block, self.norm), part_of(block, self.function)
        if changed := difference(norm, self.norm_seen, self.norm):
            return changed
        return self._obstacle(x, self.form.terms(norm), function)

    def _obstacle(self, x: Tensor, norm: NormTerms, function: nn.Module) -> str | None:
        return kernels.step_obstacle(x, norm, None)

    def _on_kernels(self, x: Tensor, norm: NormTerms, function: nn.Module, like: Tensor | None) -> Tensor:
        return x + function(kernels.normalise(x, norm))


@dataclass(frozen=True)
class AttentionStep(Step):
    """``x + mdta(norm(x))``, whether its attention is the host's or ExDA's at the time.

    Attributes:
        parts: of the host's attention, as its family finds them.
    """

    parts: tuple[tuple[str, str], ...]

    kind = "attention"
    covers_function = True

    def _obstacle(self, x: Tensor, norm: NormTerms, function: nn.Module) -> str | None:
        if type(function) is ExDAAttention:
            if does_more(function):
                return f"{self.function} has hooks"
        elif self.function_seen is None:
            return f"{self.function} is {type(function).__name__} now"
        # Of its convolutions, what is hooked or exchanged is called; a dropout or a softmax would not be.
        elif changed := difference(function, self.function_seen, self.function):
            return changed
        return kernels.step_obstacle(x, norm, self._terms(function))

    def _on_kernels(self, x: Tensor, norm: NormTerms, function: nn.Module, like: Tensor | None) -> Tensor:
        return kernels.attention_step(x, norm, self._terms(function), like)

    def _terms(self, attention: nn.Module) -> FusedTerms:
        return attention.terms() if isinstance(attention, ExDAAttention) else fused_terms(attention, dict(self.parts))


@dataclass(frozen=True)
class GatedStep(Step):
    """``x + feed_forward(norm(x))`` with Restormer's gated feed-forward.

    Attributes:
        convolutions: names of its three children, in order.
    """

    convolutions: tuple[str, str, str]

    kind = "gated feed-forward"
    covers_function = True

    def _obstacle(self, x: Tensor, norm: NormTerms, function: nn.Module) -> str | None:
        assert self.function_seen is not None
        if changed := difference(function, self.function_seen, self.function):
            return changed
        return kernels.step_obstacle(x, norm, self._terms(function))

    def _on_kernels(self, x: Tensor, norm: NormTerms, function: nn.Module, like: Tensor | None) -> Tensor:
        return kernels.gated_step(x, norm, self._terms(function), like)

    def _terms(self, feed_forward: nn.Module) -> GatedTerms:
        return GatedTerms(*(getattr(feed_forward, name) for name in self.convolutions))
