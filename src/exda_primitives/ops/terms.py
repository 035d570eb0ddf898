"""What an attention needs besides its input maps, in plain containers that every backend reads.

NamedTuples, because torch.compile and torch.export trace through them on every supported version of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

ValueForm = Literal["residual", "replace", "gelu", "sigmoid", "none"]
ValuePosition = Literal["before", "after"]
Scale = Literal["sum", "mean"]
Reinject = Literal["mean", "channelwise"]
TensorFn = Callable[[Tensor], Tensor]


class Projection(NamedTuple):
    """The host's own pair: a 1x1 convolution followed by a depthwise one; both are called as they are."""

    pointwise: TensorFn
    depthwise: TensorFn


def projected(x: Tensor, projection: Projection) -> Tensor:
    """(B, C, H, W) -> (B, C', H, W)."""
    return projection.depthwise(projection.pointwise(x))


class Branch(NamedTuple):
    """The convolutions of ``g = Conv1x1 -> DWConv3x3 -> GELU -> Conv1x1``, all C -> C."""

    in_weight: Tensor
    in_bias: Tensor
    depthwise_weight: Tensor
    depthwise_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


class ValueTerms(NamedTuple):
    """The non-linear value.

    Attributes:
        form: how V' is made of V and g.
        position: before or after the aggregation.
        branch: g; None for the forms without parameters.
        whole: where the value is more than the above: the module to call, V -> V', in place of it.
    """

    form: ValueForm
    position: ValuePosition
    branch: Branch | None
    whole: TensorFn | None = None


class TokenTerms(NamedTuple):
    """Global spatial tokens.

    Attributes:
        weight: Phi, (h*K, C, 1, 1); None where there is ``whole``.
        stride: of the average pooling before Phi.
        scale: what a compact map sums to as a value: ``"sum"`` 1, ``"mean"`` its number of pixels.
        reinject: how the tokens' own output rows come back to the channels.
        alpha: weight of those rows, (h, 1, 1).
        gate: lam, how much of the softmax mass the local rows give to tokens, (h, 1, 1).
        whole: where the tokens are more than Phi, the stride and the scale: the module to call, (B, C, H, W) -> G
            (B, h, K, H, W) as values, in place of them.
    """

    weight: Tensor | None
    stride: int
    scale: Scale
    reinject: Reinject
    alpha: Tensor
    gate: Tensor
    whole: TensorFn | None = None


class PackedQKVTerms(NamedTuple):
    """An attention on one map whose projections are one pair of convolutions.

    ``temperature`` (..., h, 1, 1); ``project`` C -> C; ``qkv`` C -> 3C (q, k, v) in Restormer's attention, C -> 5C (q1,
    k1, q2, k2, v) in Histoformer's.
    """

    temperature: Tensor
    qkv: Projection
    project: TensorFn
    value: ValueTerms | None
    tokens: TokenTerms | None


class LinearTerms(NamedTuple):
    """Cross-covariance attention, projected by linear layers on tokens: ``qkv`` C -> 3C, ``project`` C -> C."""

    temperature: Tensor
    qkv: TensorFn
    project: TensorFn
    value: ValueTerms | None
    tokens: TokenTerms | None


class WindowTerms(NamedTuple):
    """Attention between the N pixels of a window, projected by linear layers.

    Attributes:
        qkv: (B, N, C) -> (B, N, 3C).
        project: C -> C.
        scale: factor of the logits, a number or (h, 1, 1).
        cosine: whether q and k of each pixel and head are divided by their L2 norms.
        bias: of the relative positions, added to the logits, (h, N, N).
        mask: added to the logits of every W windows, (W, N, N); None for none.
        value: the non-linear value.
    """

    qkv: TensorFn
    project: TensorFn
    scale: float | Tensor
    cosine: bool
    bias: Tensor
    mask: Tensor | None
    value: ValueTerms | None


class CrossTerms(NamedTuple):
    """Cross attention: q from the first map, k, v and the tokens from the second. ``kv`` C -> 2C."""

    temperature: Tensor
    q: Projection
    kv: Projection
    project: TensorFn
    value: ValueTerms | None
    tokens: TokenTerms | None


class NormTerms(NamedTuple):
    """Layer normalisation over the channels of each pixel.

    Attributes:
        weight: (C,) or None for ones.
        bias: (C,) or None for zeros.
        subtract_mean: whether the mean is subtracted; if not, a pixel is only divided by its standard deviation.
        eps: added to the variance.
    """

    weight: Tensor | None
    bias: Tensor | None
    subtract_mean: bool
    eps: float


class GatedTerms(NamedTuple):
    """Restormer's gated feed-forward (GDFN): C -> 2M, depthwise 3x3, ``GELU(first half) * second half``, M -> C."""

    project_in: TensorFn
    depthwise: TensorFn
    project_out: TensorFn


ChannelTerms = PackedQKVTerms | LinearTerms | CrossTerms


def called_primitive(terms: ChannelTerms) -> str | None:
    """Why the value or the tokens have to be called; None where their parameters say all of them."""
    for name, primitive in (("value", terms.value), ("tokens", terms.tokens)):
        if primitive is not None and primitive.whole is not None:
            return f"the {name} has to be called: a part is hooked, wrapped, parametrised or exchanged"
    return None
