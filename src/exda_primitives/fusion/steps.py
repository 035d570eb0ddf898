"""What a transformer block is made of: steps ``x + function(norm(x))``, by the names of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..ops import dispatch, triton_or_torch
from ..ops.bare import does_more, held
from ..ops.cpu.layout import in_layout
from ..ops.terms import GatedTerms, NormTerms, PackedQKVTerms
from ..primitives import ExDAAttention
from ..primitives.packed_qkv import packed_terms
from .portrait import Portrait, difference


def part_of(block: nn.Module, name: str) -> nn.Module:
    """The module that has this name in the block."""
    part = block
    for key in name.split("."):
        child = part._modules[key]
        assert child is not None
        part = child
    return part


def _tensor(module: nn.Module, path: str) -> Tensor | None:
    """A tensor of the module or of a part of it."""
    part, _, name = path.rpartition(".")
    return held(part_of(module, part) if part else module, name)


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
        weight, bias = [None if path is None else _tensor(module, path) for path in (self.weight, self.bias)]
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
        found = self._found(x, norm, function) if dispatch.fuses() else "another backend is asked for"
        if isinstance(found, str):
            x = in_layout(x, given)
            return x + function(norm(x))
        return self._on_kernels(x, *found, function, given if last else None)

    def unsupported_reason(self, block: nn.Module, x: Tensor) -> str | None:
        """Why kernels cannot compute this step; None if they can."""
        found = self._found(x, part_of(block, self.norm), part_of(block, self.function))
        return found if isinstance(found, str) else None

    def _found(
        self, x: Tensor, norm: nn.Module, function: nn.Module
    ) -> str | tuple[NormTerms, PackedQKVTerms | GatedTerms | None]:
        """What kernels take of the two modules; or why they cannot compute them."""
        if changed := difference(norm, self.norm_seen, self.norm) or self._changed(function):
            return changed
        found = self.form.terms(norm), self._terms(function)
        return triton_or_torch.step_unsupported_reason(x, *found) or found

    def _changed(self, function: nn.Module) -> str | None:
        """What is not as it was when the step was recognised."""
        return None

    def _terms(self, function: nn.Module) -> PackedQKVTerms | GatedTerms | None:
        """What kernels take of the function; None where it is called."""
        return None

    def _on_kernels(self, x: Tensor, norm: NormTerms, terms: Any, function: nn.Module, like: Tensor | None) -> Tensor:
        return x + function(triton_or_torch.normalise(x, norm))


@dataclass(frozen=True)
class AttentionStep(Step):
    """``x + mdta(norm(x))``, whether its attention is the host's or ExDA's at the time.

    Attributes:
        parts: of the host's attention, as its family finds them.
    """

    parts: tuple[tuple[str, str], ...]

    kind = "attention"
    covers_function = True

    def _changed(self, function: nn.Module) -> str | None:
        if type(function) is ExDAAttention:
            return f"{self.function} has hooks" if does_more(function) else None
        if self.function_seen is None:
            return f"{self.function} is {type(function).__name__} now"
        # Of its convolutions, what is hooked or exchanged is called; a dropout or a softmax would not be.
        return difference(function, self.function_seen, self.function)

    def _on_kernels(self, x: Tensor, norm: NormTerms, terms: Any, function: nn.Module, like: Tensor | None) -> Tensor:
        return triton_or_torch.attention_step(x, norm, terms, like)

    def _terms(self, function: nn.Module) -> PackedQKVTerms:
        return function.terms() if isinstance(function, ExDAAttention) else packed_terms(function, dict(self.parts))


@dataclass(frozen=True)
class GatedStep(Step):
    """``x + feed_forward(norm(x))`` with Restormer's gated feed-forward.

    Attributes:
        convolutions: names of its three children, in order.
    """

    convolutions: tuple[str, str, str]

    kind = "gated feed-forward"
    covers_function = True

    def _changed(self, function: nn.Module) -> str | None:
        assert self.function_seen is not None
        return difference(function, self.function_seen, self.function)

    def _on_kernels(self, x: Tensor, norm: NormTerms, terms: Any, function: nn.Module, like: Tensor | None) -> Tensor:
        return triton_or_torch.gated_step(x, norm, terms, like)

    def _terms(self, function: nn.Module) -> GatedTerms:
        return GatedTerms(*[part_of(function, name) for name in self.convolutions])
