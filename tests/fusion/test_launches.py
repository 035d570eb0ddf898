"""How many kernels a step starts, and that none of them waits: where maps are small, this is what a forward costs."""

import pytest
import torch
from tests.ops.triton.launches import Launches
from torch import nn
from triton.runtime.interpreter import GridExecutor

import exda_primitives as exda

from .blocks import feature, small, trained


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch):
    # Counting needs no results, and the interpreter takes its time for them.
    monkeypatch.setattr(GridExecutor, "__call__", lambda *arguments, **options: None)


@torch.no_grad()
def started(dtype, bias, patched, width=16):
    """Kernels of both steps of a block."""
    model = nn.Sequential(small(bias=bias))
    if patched:
        trained(model)
    model.to(dtype)
    exda.fuse(model)
    x = feature(width=width, batch=1, dtype=dtype)
    found = []
    for step, operator in zip(model[0]._steps, ("attention_step", "gated_step"), strict=True):
        calls = []
        for _ in range(2):
            with Launches() as launches:
                out = step(model[0], x, x)
            assert launches.waits == []
            assert launches.operators == {operator: 1}
            calls.append(dict(launches.kernels))
        # The second does what the first has found out.
        assert calls[0] == calls[1]
        found += calls[:1]
        x = out
    return found


# Half precision up to 128 channels, a norm and the product that follows it being one kernel.
NORM = {"norm_pointwise_kernel": 1}
# Gram blocks and norms of q and k; the small matrices; the sum of products that writes the output with the residual.
ATTENTION = NORM | {"depthwise_kernel": 1, "_gram_kernel": 1, "fold_kernel": 1, "mix_kernel": 1}
# In one pass from the hidden map to the output; in float32 the gate is a pass of its own.
GATED = NORM | {"gated_product_kernel": 1}
GATED_IN_FLOAT32 = NORM | {"depthwise_kernel": 1, "mix_kernel": 1}
BIAS = pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])


@BIAS
def test_of_a_block_in_half_precision(bias):
    assert started(torch.bfloat16, bias, patched=False) == [ATTENTION, GATED]


def test_of_a_block_in_float32():
    # The norm is a kernel of its own, its product PyTorch's.
    apart = {"layer_norm_kernel": 1, "aten.bmm": 1}
    expected = [{**kernels, **apart} for kernels in (ATTENTION, GATED_IN_FLOAT32)]
    for kernels in expected:
        del kernels["norm_pointwise_kernel"]
    assert started(torch.float32, True, patched=False) == expected


@BIAS
def test_of_a_patched_block_in_half_precision(bias):
    attention, feed_forward = started(torch.bfloat16, bias, patched=True)
    assert feed_forward == GATED
    # The tokens' rows beside those of q, k, v, and the logits taken out of the product; the tokens' maps; the value's
    # W1 and its depthwise convolution; W2 folded with the output's matrix.
    added = {"aten.cat": 1, "aten.clone": 1, "pool_kernel": 1, "upsample_kernel": 1, "aten.bmm": 1}
    expected = ATTENTION | added | {"depthwise_kernel": 2, "fold_branch_kernel": 1}
    del expected["fold_kernel"]
    assert attention == expected


@pytest.mark.parametrize("patched", [False, True])
def test_of_rows_that_are_not_aligned(patched):
    attention, feed_forward = started(torch.bfloat16, False, patched, width=19)
    aligned, _ = started(torch.bfloat16, False, patched)
    # The copy into longer rows, filled with zeros before; that of the tokens. The second step finds them as long.
    assert attention == {**aligned, "aten.constant_pad_nd": 2 + 2 * patched}
    assert feed_forward == GATED


def test_operators_of_a_block_that_is_differentiated():
    model = nn.Sequential(trained(small()))
    exda.fuse(model)
    with Launches() as launches:
        model(feature(batch=1))
    once = dict.fromkeys(("token_maps", "gram", "fold_branch", "mix_value"), 1)
    assert launches.operators == once | {"projected": 2, "mix": 1}
