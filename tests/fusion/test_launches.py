"""How many kernels a step launches, and that it never waits for the GPU: on small maps launches decide its time."""

import pytest
import torch
from tests.ops.triton.launches import Launches
from torch import nn
from triton.runtime.interpreter import GridExecutor

import exda_primitives as exda

from .blocks import feature, patch_randomly, small_block


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch):
    # Counting needs no results, and the interpreter is slow.
    monkeypatch.setattr(GridExecutor, "__call__", lambda *arguments, **options: None)


@torch.no_grad()
def launched(dtype, bias, patched, width=16):
    """How often each of a block's two steps launches each kernel."""
    model = nn.Sequential(small_block(bias=bias))
    if patched:
        patch_randomly(model)
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
        # The first call computes and records, the second replays: both launch the same.
        assert calls[0] == calls[1]
        found += calls[:1]
        x = out
    return found


# In half precision, up to 128 channels, a norm and the 1x1 convolution after it are one kernel.
NORM = {"norm_pointwise_kernel": 1}
# After the norm: the depthwise convolution; Gram blocks and norms of q and k; the fold to small matrices; the mix,
# which writes the output with the residual.
ATTENTION = NORM | {"depthwise_kernel": 1, "_gram_kernel": 1, "fold_kernel": 1, "mix_kernel": 1}
# One pass from the hidden map to the output; in float32 the gate is a kernel of its own.
GATED = NORM | {"gated_product_kernel": 1}
GATED_IN_FLOAT32 = NORM | {"depthwise_kernel": 1, "mix_kernel": 1}
BIAS = pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])


@BIAS
def test_kernels_of_a_block_in_half_precision(bias):
    assert launched(torch.bfloat16, bias, patched=False) == [ATTENTION, GATED]


def test_kernels_of_a_block_in_float32():
    # The norm is a kernel of its own, the product after it PyTorch's.
    separate = {"layer_norm_kernel": 1, "aten.bmm": 1}
    expected = [{**kernels, **separate} for kernels in (ATTENTION, GATED_IN_FLOAT32)]
    for kernels in expected:
        del kernels["norm_pointwise_kernel"]
    assert launched(torch.float32, True, patched=False) == expected


@BIAS
def test_kernels_of_a_patched_block_in_half_precision(bias):
    attention, feed_forward = launched(torch.bfloat16, bias, patched=True)
    assert feed_forward == GATED
    # Phi's rows are appended to those of q, k and v (cat), and its logits copied out of the product (clone); the token
    # maps (pool, upsample); the value's W1 (bmm) and depthwise convolution; W2 folded with the output's matrix.
    added = {"aten.cat": 1, "aten.clone": 1, "pool_kernel": 1, "upsample_kernel": 1, "aten.bmm": 1}
    expected = ATTENTION | added | {"depthwise_kernel": 2, "fold_branch_kernel": 1}
    del expected["fold_kernel"]
    assert attention == expected


@pytest.mark.parametrize("patched", [False, True])
def test_unaligned_rows_add_only_copies(patched):
    attention, feed_forward = launched(torch.bfloat16, False, patched, width=19)
    aligned, _ = launched(torch.bfloat16, False, patched)
    # The map, and the token maps, are copied into longer rows that are first filled with zeros: 2 kernels each. The
    # second step gets long rows from the first.
    assert attention == {**aligned, "aten.constant_pad_nd": 2 + 2 * patched}
    assert feed_forward == GATED


def test_operators_of_a_block_with_gradients():
    model = nn.Sequential(patch_randomly(small_block()))
    exda.fuse(model)
    with Launches() as launches:
        model(feature(batch=1))
    once = dict.fromkeys(("token_maps", "attend"), 1)
    assert launches.operators == once | {"projected": 2, "mix": 1}
