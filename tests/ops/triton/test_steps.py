"""Gram, fold, compose and mix, one after the other, compute the attention of the concat-free path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exda_primitives.ops import torch as concat_free
from exda_primitives.ops.terms import Branch, PackedQKVTerms, Projection, TokenTerms, ValueTerms
from exda_primitives.ops.tokens import pool, softmax_over_space, unit_mean, upsample
from exda_primitives.ops.triton.fold import TokenMixing, fold
from exda_primitives.ops.triton.gram import gram
from exda_primitives.ops.triton.mix import mix
from exda_primitives.ops.value import hidden

from .agreement import poison, random
from .references import Compose

HEADS, CHANNELS, TOKENS = 2, 6, 2


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def terms(qkv: nn.Module, project: nn.Conv2d, scale: str, reinject: str) -> PackedQKVTerms:
    c, k = CHANNELS, TOKENS if reinject == "mean" else CHANNELS // HEADS
    shapes = ((c, c, 1, 1), (c,), (c, 1, 3, 3), (c,), (c, c, 1, 1), (c,))
    branch = Branch(*(random(*shape, seed=10 + i).requires_grad_() for i, shape in enumerate(shapes)))
    tokens = TokenTerms(
        random(HEADS * k, c, 1, 1, seed=1).requires_grad_(),
        2,
        scale,  # type: ignore[arg-type]
        reinject,  # type: ignore[arg-type]
        random(HEADS, 1, 1, seed=2).requires_grad_(),
        random(HEADS, 1, 1, seed=3).sigmoid().requires_grad_(),
    )
    temperature = (1 + random(HEADS, 1, 1, seed=4).abs()).requires_grad_()
    value = ValueTerms("residual", "before", branch)
    return PackedQKVTerms(temperature, Projection(nn.Identity(), qkv), project, value, tokens)


def attention_of_kernels(x: Tensor, terms: PackedQKVTerms) -> Tensor:
    assert terms.tokens is not None
    assert terms.value is not None
    assert terms.value.branch is not None
    assert isinstance(terms.project, nn.Conv2d)
    tokens, branch = terms.tokens, terms.value.branch
    q, k, v = terms.qkv.depthwise(x).chunk(3, 1)
    compact = softmax_over_space(pool(nn.functional.conv2d(x, tokens.weight), tokens.stride))
    compact, _ = unit_mean(compact, tokens.scale)
    cells = compact.shape[-2] * compact.shape[-1] if tokens.scale == "sum" else 1
    g = upsample(compact, x.shape[2:])
    blocks = gram(q.flatten(2), k.flatten(2), g.flatten(2), HEADS)
    mixing = TokenMixing(tokens.gate, tokens.alpha, cells, tokens.reinject)
    onto_v, onto_g = fold(blocks, terms.temperature, terms.project.weight.flatten(1), mixing)
    assert onto_g is not None
    onto_t, shift = Compose.apply(onto_v, branch.out_weight.flatten(1), branch.out_bias, terms.project.bias)
    maps = [m.flatten(2) for m in (v, hidden(v, branch), g)]
    return mix([onto_v, onto_t, onto_g], maps, shift, x.flatten(2)).unflatten(2, x.shape[2:])


@pytest.mark.parametrize(("scale", "reinject"), [("sum", "mean"), ("mean", "channelwise")])
def test_attention_and_all_gradients_agree(scale: str, reinject: str) -> None:
    torch.manual_seed(0)
    qkv, project = nn.Conv2d(CHANNELS, 3 * CHANNELS, 1).double(), nn.Conv2d(CHANNELS, CHANNELS, 1).double()
    made = terms(qkv, project, scale, reinject)
    assert made.value is not None
    assert made.value.branch is not None
    assert made.tokens is not None
    x = random(2, CHANNELS, 9, 7, seed=5).requires_grad_()
    leaves = [x, made.temperature, *made.value.branch, made.tokens.weight, made.tokens.alpha, made.tokens.gate]
    leaves += [*qkv.parameters(), *project.parameters()]
    upstream = random(2, CHANNELS, 9, 7, seed=6)
    expected_output = x + concat_free.mdta(x, made)
    found_output = attention_of_kernels(x, made)
    torch.testing.assert_close(found_output, expected_output, rtol=1e-10, atol=1e-12)
    expected = torch.autograd.grad(expected_output, leaves, upstream)
    found = torch.autograd.grad(found_output, leaves, upstream)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-11)
