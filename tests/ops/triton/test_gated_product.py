"""A gated feed-forward from its hidden map on, in one pass, against float64."""

import pytest
import torch
import torch.nn.functional as F

from exda_primitives.ops.triton import gated_product
from exda_primitives.ops.triton.gated_product import applies, compute, gated_product_kernel

from .agreement import poison
from .agreement import random as normal

# Relative to the largest element: two roundings, one of the gate and one of the output.
TOLERANCE = {torch.float16: 1.2e-3, torch.bfloat16: 1.2e-2}
CONFIGS = gated_product_kernel.configs


def random(*shape, dtype=torch.float32, seed=0):
    # float32 by default: Triton's interpreter cannot convert float64 to bfloat16.
    return normal(*shape, dtype=dtype, seed=seed)


def reference(x, weight, bias, shift, matrix, constant, residual):
    given = x, weight, bias, shift, matrix, constant, residual
    x, weight, bias, shift, matrix, constant, residual = (None if each is None else each.double() for each in given)
    x = x if shift is None else x + shift[:, None, None]
    one, two = F.conv2d(x, weight, bias, padding=1, groups=x.shape[1]).chunk(2, 1)
    out = torch.einsum("om,bmhw->bohw", matrix, F.gelu(one) * two)
    out = out if constant is None else out + constant[:, None, None]
    return out if residual is None else out + residual


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("hidden", "outputs", "height", "width", "valid", "biased"),
    [
        (20, 6, 3, 32, 19, True),
        (17, 48, 3, 48, None, False),
        (16, 100, 2, 16, 7, False),
        (1, 1, 1, 16, None, True),
    ],
)
def test_output_agrees_with_float64(hidden, outputs, height, width, valid, biased, dtype, config, monkeypatch):
    monkeypatch.setattr(gated_product_kernel, "configs", [config])
    poison(monkeypatch)
    x = random(1 + biased, 2 * hidden, height, width, dtype=dtype)
    residual = random(1 + biased, outputs, height, width, dtype=dtype, seed=1)
    weight, matrix = random(2 * hidden, 1, 3, 3, seed=2), random(outputs, hidden, seed=3) / hidden**0.5
    bias, shift = (random(2 * hidden, seed=seed) if biased else None for seed in (4, 5))
    constant = random(outputs, seed=6) if biased else None
    if valid:
        x[..., valid:] = torch.nan
    found = compute(x, weight, bias, shift, matrix, constant, residual, valid)[..., :valid]
    # The kernel rounds the matrix to half precision.
    half_matrix = matrix.to(dtype)
    expected = reference(x[..., :valid], weight, bias, shift, half_matrix, constant, residual[..., :valid])
    assert found.dtype is dtype
    assert (found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


def test_without_a_residual():
    x, weight, matrix = random(1, 8, 3, 16, dtype=torch.bfloat16), random(8, 1, 3, 3, seed=1), random(5, 4, seed=2)
    found = compute(x, weight, None, None, matrix, None, None, None)
    expected = reference(x, weight, None, None, matrix.bfloat16(), None, None)
    assert (found - expected).abs().max() <= TOLERANCE[torch.bfloat16] * expected.abs().max()


def test_applies_in_half_precision_up_to_128_outputs():
    half, single = torch.zeros(1, 2, 4, 16, dtype=torch.bfloat16), torch.zeros(1, 2, 4, 16)
    assert applies(half, 128)
    assert not applies(half, gated_product.MOST_OUTPUTS + 1)
    assert not applies(single, 48)
