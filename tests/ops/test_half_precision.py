"""float16 and bfloat16: flat images, sums that would overflow, and autocast."""

import pytest
import torch

import exda_primitives as exda

from ..maps import keys_and_values

HALF_TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
BACKENDS = pytest.mark.parametrize("backend", ["reference", "torch"])


def flat(maps, level):
    return tuple(torch.full_like(x, level) for x in maps)


@HALF_TYPES
@BACKENDS
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("level", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("init", ["random", "paper", "identity"])
def test_flat_image_has_finite_outputs_and_gradients(
    family, backend, dtype, bias, level, init, make_attention, make_maps, differentiate
):
    options = {} if init == "random" else {"init": init}
    module = make_attention(family, 8, 2, bias, tokens=2, dtype=dtype, **options)
    results = differentiate(module, flat(make_maps(family, 1, 8, 8, 8, dtype=dtype), level), backend)
    assert not [name for name, tensor in results.items() if not tensor.isfinite().all()]


@BACKENDS
def test_black_image_has_no_huge_gradient(family, backend, make_attention, make_maps, differentiate):
    module = make_attention(family, 8, 2, tokens=2)
    results = differentiate(module, flat(make_maps(family, 1, 8, 8, 8), 0.0), backend)
    # A row of zeros has no direction: the derivative of x / max(|x|, 1e-12) there would be 1e12, a meaningless number.
    assert {name: size for name, tensor in results.items() if (size := tensor.abs().max().item()) > 1e3} == {}


@HALF_TYPES
@BACKENDS
@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_sums_that_overflow_float16_are_exact(channel_family, backend, dtype, scale, make_attention, make_maps):
    module = make_attention(channel_family, 8, 2, tokens=2, scale=scale)
    # Keeps the tokens' logits small: bfloat16 rounds 100 to +- 0.25, and the softmax would be wrong before any sum.
    module.token.phi.weight.data.div_(30)
    module = module.to(dtype)
    maps = [(30 * x.sign() + x).to(dtype) for x in make_maps(channel_family, 1, 8, 64, 64)]
    with exda.backend(backend), torch.no_grad():
        found = module(*maps)
        module, maps = module.float(), [x.float() for x in maps]
        expected = module(*maps)
        keys, _ = keys_and_values(module, maps)
    assert keys.square().sum((2, 3)).median() > torch.finfo(torch.float16).max, "the sums have to overflow in float16"
    # Measured: 1 eps of the largest element.
    assert (found - expected).abs().max() < 3 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_token_gradient_of_a_large_image_does_not_vanish(family, scale, make_attention):
    # The mean of a map that sums to 1 over 256x256 compact pixels is 1.5e-5, below float16's smallest normal number.
    module = make_attention(family, 2, 1, tokens=1, stride=1, scale=scale, value="none", dtype=torch.float16)
    module.token_gate.data.fill_(1)
    x = torch.rand(1, 2, 256, 256, generator=torch.Generator().manual_seed(0)).half()
    maps = (x, x) if family == "cross" else (x,)
    results = torch.autograd.grad(module(*maps).float().mean(), module.token.phi.weight)
    assert results[0].isfinite().all()
    assert results[0].abs().max() > 0


@BACKENDS
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("value", ["residual", "replace", "gelu", "sigmoid", "none"])
def test_autocast_agrees_with_float32(family, backend, value, position, make_attention, make_maps):
    options = {"value": value, "value_position": position}
    module = make_attention(family, 8, 2, True, tokens=2, dtype=torch.float32, **options)
    maps = [x.requires_grad_() for x in make_maps(family, 2, 8, 9, 7, dtype=torch.float32)]
    with exda.backend(backend):
        with torch.autocast("cpu", torch.bfloat16):
            output = module(*maps)
        expected = module(*maps)
    assert output.dtype is torch.bfloat16
    output.float().square().sum().backward()
    assert all(leaf.grad.isfinite().all() for leaf in [*maps, *module.parameters()])
    if family != "histogram":  # whose sorts turn bfloat16's rounding into another image
        # Measured: 2.5 eps of the largest element.
        eps = torch.finfo(torch.bfloat16).eps
        assert (output - expected).abs().max() < 6 * eps * expected.abs().max()
