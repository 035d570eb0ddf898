"""A patched model works with channels_last, autocast, gradient checkpointing and torch.compile."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import exda_primitives as exda

from .hosts import MDTA, Cross
from .models import Net, image, patched_and_trained, two_blocks

MODELS = {"mdta": two_blocks, "cross": lambda: Net(Cross(), inputs=2)}


@pytest.fixture(params=MODELS)
def model(request):
    return patched_and_trained(MODELS[request.param])


@torch.no_grad()
def test_channels_last(model):
    x = image()
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_autocast(model):
    x = image()
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    assert (out - expected).abs().max() < 0.1


def test_gradient_checkpointing(model):
    x = image()
    model(x).sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    checkpoint(model, x, use_reentrant=False).sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@torch.no_grad()
def test_compiled_as_one_graph(model):
    torch.compiler.reset()
    whole = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    for size in ((16, 24), (9, 7)):
        x = image(*size)
        torch.testing.assert_close(whole(x), model(x), rtol=0, atol=1e-5)
    torch.compiler.reset()


def test_settings_of_the_host_that_change_later_are_noticed():
    class Scaled(MDTA):
        def __init__(self):
            super().__init__()
            self.scale, self.drop = 1.0, nn.Dropout(0.0)

        def forward(self, x):
            return self.drop(self.scale * super().forward(x))

    model = nn.ModuleList([Scaled()])
    exda.patch(model)
    x = torch.rand(1, 8, 6, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model[0](x)
    model[0].scale = 2.0
    with pytest.warns(
        UserWarning, match=r"0: ExDAAttention.*: scale was 1.0 when it was patched, and is 2.0 now.*exda.unpatch"
    ):
        model[0](x)
    with warnings.catch_warnings():
        # Said once.
        warnings.simplefilter("error")
        model[0](x)
    model[0].drop.p = 0.5
    with pytest.raises(
        exda.ConfigError, match=r"0: ExDAAttention.*: drop.p is 0.5 now; this attention drops no values"
    ):
        model[0](x)
    model.eval()
    assert torch.equal(model[0](x), copy.deepcopy(model)[0](x))
    exda.unpatch(model)
    assert (type(model[0]), model[0].scale, model[0].drop.p) == (Scaled, 2.0, 0.5)
