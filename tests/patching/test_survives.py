"""A patched model works with channels_last, autocast, gradient checkpointing and torch.compile."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from .hosts import Cross
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
