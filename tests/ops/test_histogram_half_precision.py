"""Half-precision histogram attention against float32, on values that are not rounded before they are sorted.

The projections only permute channels, and a channel's pixels are 240 different integers times a power of 2, which both
half types hold exactly: values are sorted as in float32. Tokens are rounded before they are sorted, so near ties may
swap.
"""

import pytest
import torch


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def dtype(request):
    return request.param


@pytest.fixture(params=[1, 2], ids=["one head", "two heads"])
def found_and_expected(request, dtype, make_attention, differentiate):
    def run(step=1 / 64, **options):
        generator = torch.Generator().manual_seed(0)
        module = make_attention("histogram", 8, request.param, value="none", scale="mean", **options)
        permutations = torch.cat([torch.eye(8)[torch.randperm(8, generator=generator)] for _ in range(5)])
        with torch.no_grad():
            module.qkv.weight.copy_(permutations[..., None, None])
            # The identity.
            torch.nn.init.dirac_(module.qkv_dwconv.weight, groups=40)
        pixels = torch.stack([torch.randperm(240, generator=generator) - 120 for _ in range(16)])
        x = (pixels.reshape(2, 8, 16, 15) * step).to(dtype)
        found = differentiate(module.to(dtype), (x,), "torch")
        return found, differentiate(module.float(), (x.float(),), "reference")

    return run


def test_without_tokens_all_gradients_agree(found_and_expected, dtype, relative_errors):
    errors = relative_errors(*found_and_expected(tokens=0))
    # Measured: 1.6 eps.
    assert max(errors.values()) < 4 * torch.finfo(dtype).eps, errors


def test_with_tokens_the_output_agrees(found_and_expected, dtype, relative_errors):
    errors = relative_errors(*found_and_expected(tokens=2, stride=1))
    # Measured over three seeds: 6.5 eps; swapping a near tie exchanges neighbours among 240 sorted values.
    assert errors["output"] < 16 * torch.finfo(dtype).eps


def test_sums_that_overflow_float16_are_exact(found_and_expected, dtype):
    found, expected = found_and_expected(step=1 / 2, tokens=0)
    # With two heads a run holds half a channel's pixels: 120 squares of values within +-60, with a mean of 60 ** 2 / 3.
    assert torch.finfo(torch.float16).max < 120 * 60**2 / 3, "the sums have to overflow in float16"
    # Measured: 0.6 eps.
    assert relative_error(found["output"], expected["output"]) < 2 * torch.finfo(dtype).eps


def relative_error(found, expected):
    return (found - expected).abs().max() / expected.abs().max()
