"""How many kernels each function launches: on small maps the GPU waits for Python, and every launch takes time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import exda_primitives as exda
from exda_primitives.ops.triton import tiles
from exda_primitives.ops.triton.compose import compose
from exda_primitives.ops.triton.depthwise import depthwise
from exda_primitives.ops.triton.fold import TokenMixing, fold
from exda_primitives.ops.triton.fold_branch import fold_branch
from exda_primitives.ops.triton.gram import gram
from exda_primitives.ops.triton.mix import mix
from exda_primitives.ops.triton.norm import layer_norm
from exda_primitives.ops.triton.norm_pointwise import norm_pointwise, pointwise
from exda_primitives.ops.triton.tokens import token_maps

from .agreement import random
from .launches import Launches
from .references import gram_reference

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
BIAS = pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
BATCH, HEADS, C, HEIGHT, WIDTH = 2, 2, 4, 5, 6
CHANNELS, PIXELS = HEADS * C, HEIGHT * WIDTH


def launched(function: Callable[..., object], *arguments: object) -> dict[str, int]:
    """How often a call launches each kernel; fails if the call waits for the GPU."""
    with torch.no_grad(), Launches() as launches:
        function(*arguments)
    assert launches.waits == []
    return dict(launches.kernels)


def sliced_map(channels: int = CHANNELS, dtype: torch.dtype = torch.float32) -> Tensor:
    """A map cut out of a larger buffer, as q, k and v are."""
    return random(BATCH, channels + 3, HEIGHT, WIDTH, dtype=dtype)[:, 3:]


@BIAS
@DTYPES
def test_pointwise(dtype: torch.dtype, with_bias: bool) -> None:
    bias = random(7, dtype=dtype) if with_bias else None
    expected = {"aten.baddbmm": 2} if with_bias else {"aten.bmm": 1}
    assert launched(pointwise, sliced_map(dtype=dtype), random(7, CHANNELS, dtype=dtype), bias) == expected


@BIAS
@DTYPES
@pytest.mark.parametrize("activation", ["none", "gelu", "gate"])
def test_depthwise(activation: str, dtype: torch.dtype, with_bias: bool) -> None:
    weight, bias = random(CHANNELS, 1, 3, 3), random(CHANNELS) if with_bias else None
    assert launched(depthwise, sliced_map(dtype=dtype), weight, bias, activation, bias) == {"depthwise_kernel": 1}


@DTYPES
def test_token_maps(dtype: torch.dtype) -> None:
    assert launched(token_maps, sliced_map(HEADS, dtype), 2) == {"pool_kernel": 1, "upsample_kernel": 1}


@DTYPES
@pytest.mark.parametrize("tokens", [1, 0])
def test_gram(tokens: int, dtype: torch.dtype) -> None:
    x, g = sliced_map(dtype=dtype).flatten(2), sliced_map(HEADS, dtype).flatten(2) if tokens else None
    assert launched(gram, x, x, g, HEADS) == {"_gram_kernel": 1}


def test_gradient_of_an_attention() -> None:
    attention = exda.ExDAAttention(16, 2, bias=False)
    with exda.backend("triton"):
        y = attention(torch.randn(1, 16, 8, 8, requires_grad=True))
        found = launched(y.backward, torch.ones_like(y))
    assert found["fold_backward_kernel"] == found["compose_backward_kernel"] == 1
    assert sum(found.values()) <= 17


def test_gram_split_over_programs_adds_one_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_multiprocessors", lambda device: 200)
    x = random(1, CHANNELS, 600, dtype=torch.float32)
    assert launched(gram, x, x, None, HEADS) == {"_gram_kernel": 1, "aten.sum": 1}


def fold_arguments(tokens: int, c: int = C) -> tuple[object, ...]:
    """Arguments of ``fold``: float32 Gram fold_arguments; temperature, left matrix, gate and alpha in bfloat16."""
    x = random(BATCH, HEADS * c, 20, dtype=torch.float32)
    g = random(BATCH, HEADS * tokens, 20, dtype=torch.float32) if tokens else None
    parameters = torch.ones(HEADS, 1, 1, dtype=torch.bfloat16)
    mixing = TokenMixing(parameters, parameters) if tokens else None
    return gram_reference(x, x, g, HEADS), parameters, random(6, HEADS * c, dtype=torch.bfloat16), mixing


@pytest.mark.parametrize("tokens", [1, 0])
def test_fold(tokens: int) -> None:
    assert launched(fold, *fold_arguments(tokens)) == {"fold_kernel": 1}


@pytest.mark.parametrize("tokens", [1, 0])
def test_gradient_of_fold(tokens: int) -> None:
    gram, temperature, left, mixing = fold_arguments(tokens)
    left.requires_grad_()  # type: ignore[attr-defined]
    matrices = [x for x in fold(gram, temperature, left, mixing) if x is not None]  # type: ignore[arg-type]
    grads = [torch.ones_like(x) for x in matrices]
    found = launched(torch.autograd.grad, matrices, left, grads)
    # Gradients are summed over images and cast to the parameters' dtype, those of all parameters at once.
    assert found == {"fold_backward_kernel": 1, "aten.sum": 1, "aten._to_copy": 1}


@BIAS
def test_compose(with_bias: bool) -> None:
    small = [random(*size, dtype=torch.bfloat16) for size in ((CHANNELS, 7), (CHANNELS,), (6,))]
    matrix = random(BATCH, 6, CHANNELS, dtype=torch.float32)
    assert launched(compose, matrix, *small[:2], small[2] if with_bias else None) == {"compose_kernel": 1}


@BIAS
@pytest.mark.parametrize("tokens", [1, 0])
def test_fold_branch(tokens: int, with_bias: bool) -> None:
    small = [random(*size, dtype=torch.bfloat16) for size in ((CHANNELS, 7), (CHANNELS,), (6,))]
    arguments = (*fold_arguments(tokens), *small[:2], small[2] if with_bias else None)
    assert launched(fold_branch, *arguments) == {"fold_branch_kernel": 1}


def test_fold_branch_of_large_matrices() -> None:
    small = [random(*size, dtype=torch.bfloat16) for size in ((HEADS * 65, 7), (HEADS * 65,))]
    assert launched(fold_branch, *fold_arguments(1, 65), *small) == {"fold_kernel": 1, "compose_kernel": 1}


@BIAS
@DTYPES
def test_mix(dtype: torch.dtype, with_bias: bool) -> None:
    maps = [sliced_map(channels, dtype).flatten(2) for channels in (CHANNELS, CHANNELS, HEADS)]
    matrices = [random(BATCH, 6, x.shape[1], dtype=torch.float32) for x in maps]
    shift = random(6, dtype=dtype).expand(BATCH, -1) if with_bias else None
    residual = sliced_map(6, dtype).flatten(2) if with_bias else None
    assert launched(mix, matrices, maps, shift, residual) == {"mix_kernel": 1}


@DTYPES
def test_layer_norm(dtype: torch.dtype) -> None:
    weight = random(CHANNELS, dtype=torch.float32)
    assert launched(layer_norm, sliced_map(dtype=dtype), weight, weight, True, 1e-5) == {"layer_norm_kernel": 1}


@BIAS
@DTYPES
def test_norm_pointwise(dtype: torch.dtype, with_bias: bool) -> None:
    norm, weight = random(CHANNELS, dtype=dtype), random(7, CHANNELS, dtype=dtype)
    bias = random(7, dtype=dtype) if with_bias else None
    expected = {"norm_pointwise_kernel": 1}
    if dtype is torch.float32:
        # In full float32 precision: the norm by itself, then PyTorch's product.
        expected = {"layer_norm_kernel": 1} | ({"aten.baddbmm": 2} if with_bias else {"aten.bmm": 1})
    assert launched(norm_pointwise, sliced_map(dtype=dtype), norm, norm, True, 1e-5, weight, bias) == expected


X = torch.ones(3, 4)


@pytest.mark.parametrize(
    "wait",
    [
        lambda: X.sum().item(),
        X.tolist,
        X.cpu,
        X.numpy,
        lambda: bool(X.sum() > 1),
        lambda: float(X[0, 0]),
        X.nonzero,
        lambda: X[X > 0],
        lambda: X.masked_select(X > 0),
        lambda: torch.equal(X, X),
        lambda: torch.tensor([1.0, 2.0]),
        lambda: X.to("meta"),
    ],
)
def test_launches_notices_waits(wait: Callable[[], object]) -> None:
    with Launches() as launches:
        wait()
    assert launches.waits


def test_launches_counts_kernels_but_no_views_or_allocations() -> None:
    with Launches() as launches:
        y = torch.empty(4, 4)[1:].view(3, 2, 2).flatten(1)
        y.copy_(X).expand(2, 3, 4).unbind()
        torch.nn.functional.pad(X + y, (1, 1))
        X[:0] * 2
    assert launches.kernels == {"aten.copy_": 1, "aten.add": 1, "aten.constant_pad_nd": 2}
    assert launches.waits == []


def test_launches_counts_inside_operators_and_only_inside_its_block() -> None:
    x = random(1, CHANNELS, 600, dtype=torch.float32).transpose(1, 2).contiguous().transpose(1, 2)
    with Launches() as launches:
        gram(x, x, None, HEADS)
    gram(x, x, None, HEADS)
    # A row's pixels are not contiguous: q and k are copied, once each.
    assert launches.kernels["_gram_kernel"] == launches.operators["gram"] == 1
    assert launches.kernels["aten.clone"] == 2
