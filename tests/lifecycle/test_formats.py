"""Whole networks in channels_last and under autocast."""

import pytest
import torch

import exda_primitives as exda

from .networks import CLASSES, image, loss, trained


@pytest.fixture(params=CLASSES)
def family(request):
    return request.param


def test_channels_last_preserves_gradients(family):
    # In float64, as Histoformer's sorts depend on the last bit of float32.
    model, x = trained(family).double(), image(dtype=torch.float64)
    expected = torch.autograd.grad(loss(model, x), exda.new_parameters(model))
    model.to(memory_format=torch.channels_last)
    found = torch.autograd.grad(loss(model, x.to(memory_format=torch.channels_last)), exda.new_parameters(model))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_autocast_trains(family):
    model, x = trained(family), image()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(model, x)
    value.backward()
    torch.testing.assert_close(value, loss(model, x), rtol=0.1, atol=0)
    for parameter in exda.new_parameters(model):
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0
