"""Attention outside fused blocks on a CPU: strips are as exact as whole maps, and used only where they pay."""

import copy

import pytest
import torch
from tests.ops.test_agreement import CASES
from torch.func import vmap

import exda_primitives as exda
from exda_primitives.ops import cpu
from exda_primitives.ops import torch as concat_free
from exda_primitives.ops.cpu import strips, unsupported

# Strips do not support a value after the aggregation.
VALUE_BEFORE = [case for case in CASES if case.position == "before"]


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the inputs computed strip by strip; even the smallest maps are cut, into strips of a few rows."""
    monkeypatch.setattr(unsupported, "_WORTH_STRIPS", 1)
    monkeypatch.setattr(strips, "_BYTES", 8000)
    found, attention = [], cpu.attention
    monkeypatch.setattr(cpu, "attention", lambda x, terms: found.append(tuple(x.shape)) or attention(x, terms))
    return found


def prepared(case, make_attention, make_maps):
    module = make_attention("mdta", case.heads * case.channels, case.heads, case.bias, **case.options)
    (x,) = make_maps("mdta", case.batch, case.heads * case.channels, case.height, case.width)
    return module, x


@pytest.mark.parametrize("case", VALUE_BEFORE, ids=str)
@torch.no_grad()
def test_strips_err_at_most_twice_as_much_as_whole_maps(case, calls, make_attention, make_maps):
    module, x = prepared(case, make_attention, make_maps)
    with exda.backend("reference"):
        expected = module(x)
    single, x = copy.deepcopy(module).float(), x.float()
    with exda.backend("torch"):
        whole = single(x)
    assert not calls
    found = single(x)
    assert calls == [tuple(x.shape)]
    error, whole_error = ((each.double() - expected).abs().max() for each in (found, whole))
    assert error <= 2 * whole_error + 1e-6 * expected.abs().max()


@pytest.mark.parametrize("case", VALUE_BEFORE[::3], ids=str)
@torch.no_grad()
def test_bfloat16_strips_err_hardly_more_than_whole_maps(case, calls, make_attention, make_maps):
    module, x = prepared(case, make_attention, make_maps)
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        single, x = copy.deepcopy(module).float(), x.float()
        with exda.backend("torch"):
            whole = single(x)
        found = single(x)
    assert calls
    assert found.dtype is whole.dtype is torch.bfloat16
    error, whole_error = ((each.double() - expected).norm() / expected.norm() for each in (found, whole))
    assert error <= 1.3 * whole_error + 2**-9


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_output_keeps_the_memory_format_of_the_input(calls, make_attention, make_maps, layout):
    (x,) = make_maps("mdta", 2, 6, 40, 70, dtype=torch.float32)
    found = make_attention("mdta", dtype=torch.float32)(x.contiguous(memory_format=layout))
    assert calls
    assert found.is_contiguous(memory_format=layout)


@torch.no_grad()
def test_strips_are_used_from_4096_pixels_on(make_attention, monkeypatch):
    asked = []
    monkeypatch.setattr(cpu, "attention", lambda x, _: asked.append(tuple(x.shape)) or x)
    module = make_attention("mdta", dtype=torch.float32)
    # 63 * 65 = 4095 pixels, one too few; the shape does not matter, only the number.
    for height, width in ((63, 65), (64, 64), (2, 2048)):
        module(torch.zeros(1, 6, height, width))
    assert asked == [(1, 6, 64, 64), (1, 6, 2, 2048)]


@pytest.mark.parametrize(
    "what", ["gradients", "an input with gradients", "float64", "hook", "after", "vmap", "float16"]
)
def test_unsupported_cases_compute_whole_maps(what, calls, make_attention, make_maps):
    dtype = torch.float64 if what == "float64" else torch.float32
    module = make_attention("mdta", dtype=dtype, value_position="after" if what == "after" else "before")
    (x,) = make_maps("mdta", 2, 6, 5, 7, dtype=dtype)
    with torch.no_grad():
        expected = concat_free.mdta(x, module.terms())
    if what == "hook":
        module.project_out.register_forward_hook(lambda *_: None)
    if what == "an input with gradients":
        module.requires_grad_(False)
        x.requires_grad_()
    gradients = "gradients" in what
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.float16, enabled=what == "float16"):
        found = vmap(module)(x[:, None])[:, 0] if what == "vmap" else module(x)
    assert not calls
    assert found.requires_grad is gradients
    # The expected output is float32; autocast computes products in float16.
    tolerance = 0.1 if what == "float16" else 1e-5
    torch.testing.assert_close(found.to(dtype), expected, rtol=tolerance, atol=tolerance)
