"""From the identity start, the new parameters alone can be trained."""

import pytest
import torch

import exda_primitives as exda

from .hosts import Cross, Histogram
from .models import Net, image, two_blocks

MODELS = {
    "mdta": two_blocks,
    "cross": lambda: Net(Cross(), inputs=2),
    "histogram": lambda: Net(Histogram()),
}


@pytest.mark.parametrize("family", MODELS)
def test_training_only_new_parameters_lowers_the_loss(family):
    model = MODELS[family]()
    exda.patch(model)
    model.requires_grad_(False)
    ours = exda.new_parameters(model)
    for parameter in ours:
        parameter.requires_grad_(True)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD(ours, lr=1.0)
    x, target = image(), image()
    before = model(x)
    (before - target).square().mean().backward()
    optimizer.step()
    after = model(x)
    assert not torch.equal(after, before)
    assert (after - target).square().mean() < (before - target).square().mean()
    assert all(torch.equal(model.get_parameter(name), held) for name, held in frozen.items())


@pytest.mark.parametrize("family", MODELS)
def test_gradients_at_the_identity_start_are_not_zero(family):
    model = MODELS[family]()
    exda.patch(model)
    (model(image()) - image()).square().mean().backward()
    attention = model.blocks[0].attn
    for start in (attention.alpha, attention.token_gate, attention.value.conv_out.weight):
        assert start.grad.abs().max() > 0


def test_optimizer_accepts_the_new_parameters():
    model = two_blocks()
    exda.patch(model)
    ours = exda.new_parameters(model)
    assert len({id(parameter) for parameter in ours}) == len(ours)
    torch.optim.SGD([{"params": ours}], lr=0.1)
