"""The steps ``x + function(norm(x))`` of a transformer block; each knows its parts by their names in the block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..ops import dispatch, triton_or_torch
from ..ops.bare import does_more, tensor_of
from ..ops.cpu.layout import in_layout
from ..ops.terms import GatedTerms, NormTerms, PackedQKVTerms
from ..primitives import ExDAAttention
from ..primitives.packed_qkv import packed_terms
from .snapshot import Snapshot, difference


def part_of(block: nn.Module, name: str) -> nn.Module:
    """Returns the module of this dotted name in the block."""
    part = block
    for key in name.split("."):
        child = part._modules[key]
        assert child is not None
        part = child
    return part


def _tensor(module: nn.Module, path: str) -> Tensor | None:
    """Returns a tensor of the module, or of a part of it, by its dotted path."""
    part, _, name = path.rpartition(".")
    return tensor_of(part_of(module, part) if part else module, name)


@dataclass(frozen=True)
class NormForm:
    """A layer normalisation over channels: the paths of its parameters in the module, and its formula.

    Attributes:
        weight: attribute path of the weight (C,); None if it has none.
        bias: attribute path of the bias (C,); None if it has none.
        subtract_mean: whether it subtracts the mean; if not, it only divides by the standard deviation.
        eps: number added to the variance.
    """

    weight: str | None
    bias: str | None
    subtract_mean: bool
    eps: float

    def terms(self, module: nn.Module) -> NormTerms:
        """Returns the parameters and settings of a norm of this form, as kernels take them."""
        weight, bias = [None if path is None else _tensor(module, path) for path in (self.weight, self.bias)]
        return NormTerms(weight, bias, self.subtract_mean, self.eps)


@dataclass(frozen=True)
class Step:
    """``x + function(norm(x))``; kernels compute the norm, the function's module is called.

    Attributes:
        norm: name of the norm in the block, dotted for a part of a child (``norms.0``).
        function: name of the function (attention or feed-forward) in the block, dotted as for the norm.
        form: form of the norm.
        norm_seen: snapshot of the norm when it was recognised.
        function_seen: snapshot of the function; None if its formula is unknown, or if it is an ExDA attention that
            replaces no host.
    """

    norm: str
    function: str
    form: NormForm
    norm_seen: Snapshot
    function_seen: Snapshot | None

    kind: ClassVar[str] = "any function"
    covers_function: ClassVar[bool] = False
    """Whether kernels compute the function, too."""

    def __call__(self, block: nn.Module, x: Tensor, given: Tensor, last: bool = True) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W).

        Args:
            block: the block that this is a step of.
            x: output of the step before.
            given: the block's input; modules, and the block's caller, get maps in its memory format.
            last: whether it is the block's last step.
        """
        norm, function = part_of(block, self.norm), part_of(block, self.function)
        found = self._found(x, norm, function) if dispatch.fuses() else "another backend is asked for"
        if isinstance(found, str):
            x = in_layout(x, given)
            return x + function(norm(x))
        return self._on_kernels(x, *found, function, given if last else None)

    def kinds(self) -> Iterator[type]:
        """Returns the classes of modules in whose place kernels compute."""
        for seen in (self.norm_seen, self.function_seen):
            if seen is not None:
                yield from seen.kinds()

    def unsupported_reason(self, block: nn.Module, x: Tensor) -> str | None:
        """Returns why kernels cannot compute this step; None if they can."""
        found = self._found(x, part_of(block, self.norm), part_of(block, self.function))
        return found if isinstance(found, str) else None

    def _found(
        self, x: Tensor, norm: nn.Module, function: nn.Module
    ) -> str | tuple[NormTerms, PackedQKVTerms | GatedTerms | None]:
        """Returns the parameters of norm and function, as kernels take them, or why kernels cannot compute the step."""
        if changed := difference(norm, self.norm_seen, self.norm) or self._changed(function):
            return changed
        found = self.form.terms(norm), self._terms(function)
        return triton_or_torch.step_unsupported_reason(x, *found) or found

    def _changed(self, function: nn.Module) -> str | None:
        """Returns how the function differs from what was recognised; None if it does not."""
        return None

    def _terms(self, function: nn.Module) -> PackedQKVTerms | GatedTerms | None:
        """Returns the function's layers and primitives as kernels take them; None if its module is called."""
        return None

    def _on_kernels(self, x: Tensor, norm: NormTerms, terms: Any, function: nn.Module, like: Tensor | None) -> Tensor:
        return x + function(triton_or_torch.normalise(x, norm))


@dataclass(frozen=True)
class AttentionStep(Step):
    """``x + mdta(norm(x))``, with the host's attention or ExDA's, whichever is in place at the call.

    Attributes:
        parts: pairs (name in ``PARTS``, attribute) of the host's attention, as its family finds them.
    """

    parts: tuple[tuple[str, str], ...]

    kind = "attention"
    covers_function = True

    def kinds(self) -> Iterator[type]:
        """See ``Step.kinds``; ``patch`` may put ExDA's attention in."""
        yield from (*super().kinds(), ExDAAttention)

    def _changed(self, function: nn.Module) -> str | None:
        if type(function) is ExDAAttention:
            return f"{self.function} has hooks" if does_more(function) else None
        if self.function_seen is None:
            return f"{self.function} is {type(function).__name__} now"
        # Convolutions may be exchanged or hooked: they are called then. A new dropout or softmax would be passed over.
        return difference(function, self.function_seen, self.function)

    def _on_kernels(self, x: Tensor, norm: NormTerms, terms: Any, function: nn.Module, like: Tensor | None) -> Tensor:
        return triton_or_torch.attention_step(x, norm, terms, like)

    def _terms(self, function: nn.Module) -> PackedQKVTerms:
        return function.terms() if isinstance(function, ExDAAttention) else packed_terms(function, dict(self.parts))


@dataclass(frozen=True)
class GatedStep(Step):
    """``x + feed_forward(norm(x))`` with Restormer's gated feed-forward.

    Attributes:
        convolutions: names of its convolutions C -> 2M, depthwise, M -> C.
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
