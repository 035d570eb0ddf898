"""Primitives in another dtype than the maps: an error that names them, but computed under autocast."""

import copy

import pytest
import torch
from torch import nn

import exda_primitives as exda

HALF = (torch.bfloat16, torch.float32)
BOTH_WAYS = pytest.mark.parametrize(("dtype", "new"), [HALF, HALF[::-1]], ids=["new-float32", "new-bfloat16"])


def in_two_dtypes(module, new):
    for parameter in module.new_parameters().values():
        parameter.data = parameter.data.to(new)
    return module


@BOTH_WAYS
@pytest.mark.parametrize("backend", ["torch", "reference", "triton"])
def test_error_names_every_parameter_of_another_dtype(family, dtype, new, backend, make_attention, make_maps):
    module = in_two_dtypes(make_attention(family, 8, 2, dtype=dtype), new)
    module.full_name = "blocks.0.attn"
    with exda.backend(backend), pytest.raises(exda.InputError) as error:
        module(*make_maps(family, 1, 8, 5, 3, dtype=dtype))
    message = str(error.value)
    for part in ("blocks.0.attn", type(module).__name__, f"map is {dtype}", "torch.autocast('cpu')", f"to({dtype})"):
        assert part in message
    for name in ("token.phi.weight", "value.conv_in.weight", "value.dwconv.bias", "value.conv_out.weight"):
        assert f"{name} is {new}" in message


def test_single_parameter_of_another_dtype_is_refused(family, make_attention, make_maps):
    for name in ("token.phi.weight", "value.conv_out.bias"):
        module = make_attention(family, 8, 2, dtype=torch.float32)
        module.get_parameter(name).data = module.get_parameter(name).data.double()
        with pytest.raises(exda.InputError, match=rf"map is torch.float32, {name} is torch.float64: "):
            module(*make_maps(family, 1, 8, 5, 3, dtype=torch.float32))


@BOTH_WAYS
def test_autocast_computes_in_two_dtypes(family, dtype, new, make_attention, make_maps):
    module = in_two_dtypes(make_attention(family, 8, 2, dtype=dtype), new)
    maps = make_maps(family, 1, 8, 5, 3, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*maps)
        expected = copy.deepcopy(module).to(torch.float32)(*(x.float() for x in maps))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1 * expected.abs().max().item(), check_dtype=False)
    found.float().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.new_parameters().values())


def test_alpha_and_gate_may_have_another_dtype(channel_family, make_attention, make_maps):
    module = make_attention(channel_family, 8, 2, dtype=torch.bfloat16)
    maps = make_maps(channel_family, 1, 8, 5, 3, dtype=torch.bfloat16)
    expected = module(*maps)
    for name in ("alpha", "token_gate"):
        module.get_parameter(name).data = module.get_parameter(name).data.float()
    assert torch.equal(module(*maps), expected)


def test_projections_that_change_the_dtype_of_v_are_not_refused(make_attention, make_maps):
    """V's dtype is checked only where it follows from the projection's weight."""

    class InFloat32(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.float())

    module = make_attention("mdta", 8, 2, tokens=0, dtype=torch.float32)
    (x,) = make_maps("mdta", 1, 8, 5, 3, dtype=torch.bfloat16)
    module.qkv = InFloat32(module.qkv)
    module.qkv_dwconv = InFloat32(module.qkv_dwconv)
    assert module(x).dtype is torch.float32


@pytest.mark.parametrize(
    ("module", "name"),
    [(exda.NonlinearValue(8), "conv_in.weight"), (exda.GST(8, 2), "phi.weight")],
    ids=["NonlinearValue", "GST"],
)
def test_standalone_primitives_name_the_parameter(module, name):
    with pytest.raises(exda.InputError) as error:
        module(torch.randn(1, 8, 4, 4).bfloat16())
    assert str(error.value).startswith(f"{module!r}: ")
    assert f"is torch.bfloat16, {name} is torch.float32" in str(error.value)
