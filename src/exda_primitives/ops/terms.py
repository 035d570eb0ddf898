"""Parameters and options of an attention or a residual step, in plain containers that every backend reads.

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
    """The host's own projection: a 1x1 convolution, then a depthwise 3x3 one; any callables on maps."""

    pointwise: TensorFn
    depthwise: TensorFn


def projected(x: Tensor, projection: Projection) -> Tensor:
    """Calls both layers of the projection, (B, C, H, W) -> (B, C', H, W)."""
    return projection.depthwise(projection.pointwise(x))


class Branch(NamedTuple):
    """The convolutions of ``g = Conv1x1 -> DWConv3x3 -> GELU -> Conv1x1``.

    Weights are (C, C, 1, 1), (C, 1, 3, 3) and (C, C, 1, 1), biases (C,).
    """

    in_weight: Tensor
    in_bias: Tensor
    depthwise_weight: Tensor
    depthwise_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


class ValueTerms(NamedTuple):
    """The non-linear value.

    Attributes:
        form: ``"residual"`` V + g(V), ``"replace"`` g(V), ``"gelu"`` GELU(V), ``"sigmoid"`` sigmoid(V), ``"none"`` V.
        position: whether it is applied to V before the aggregation, or to the aggregated rows after it.
        branch: weights of g; None for the forms without parameters.
        whole: module to call instead, V -> V', if the fields above are not all it computes (it is hooked, wrapped).
    """

    form: ValueForm
    position: ValuePosition
    branch: Branch | None
    whole: TensorFn | None = None


class TokenTerms(NamedTuple):
    """Global spatial tokens.

    Attributes:
        weight: weight of Phi, (h*K, C, 1, 1); None if ``whole`` is given.
        stride: kernel and stride of the average pooling before Phi.
        scale: what a compact map sums to as a value: 1 with ``"sum"``, its number of pixels with ``"mean"``.
        reinject: how the tokens' output rows are added to the channels': their mean to all channels of the head, or,
            with ``"channelwise"`` and K = c, row by row.
        alpha: weight of those rows, (h, 1, 1).
        gate: lam, the share of the tokens' softmax mass that the local rows give to them, (h, 1, 1); 1 is the paper's
            formula, 0 the host's.
        whole: module to call instead, (B, C, H, W) -> G (B, h, K, H, W) as values, if weight, stride and scale are not
            all it computes (it is hooked, wrapped).
    """

    weight: Tensor | None
    stride: int
    scale: Scale
    reinject: Reinject
    alpha: Tensor
    gate: Tensor
    whole: TensorFn | None = None


class PackedQKVTerms(NamedTuple):
    """An attention on one map with one projection for q, k and v together.

    Attributes:
        temperature: factor of the logits, (..., h, 1, 1).
        qkv: C -> 3C (q, k, v) in Restormer's attention, C -> 5C (q1, k1, q2, k2, v) in Histoformer's.
        project: output projection, C -> C.
        value: non-linear value, or None for a linear one.
        tokens: global spatial tokens, or None.
    """

    temperature: Tensor
    qkv: Projection
    project: TensorFn
    value: ValueTerms | None
    tokens: TokenTerms | None


class LinearTerms(NamedTuple):
    """Cross-covariance attention on (B, N, C) with linear projections, ``qkv`` C -> 3C and ``project`` C -> C.

    The other fields are as in ``PackedQKVTerms``.
    """

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
        mask: added to the logits of every W windows, (W, N, N); None if no pair is masked.
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
    """Cross attention: ``q`` C -> C from the first map; ``kv`` C -> 2C and the tokens from the second.

    The other fields are as in ``PackedQKVTerms``.
    """

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
    """Why the value or the tokens have to be called as modules; None if their parameters are all that they compute."""
    for name, primitive in (("value", terms.value), ("tokens", terms.tokens)):
        if primitive is not None and primitive.whole is not None:
            return f"the {name} has to be called: a part is hooked, wrapped, parametrised or exchanged"
    return None
