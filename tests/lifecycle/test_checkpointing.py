"""Gradient checkpointing, which computes blocks again in the backward pass."""

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from .networks import CLASSES, image, loss, trained


@pytest.mark.parametrize("reentrant", [False, True], ids=["not-reentrant", "reentrant"])
@pytest.mark.parametrize("family", CLASSES)
def test_gradients_equal_those_without_checkpointing(family, reentrant):
    model, x = trained(family).double().train(), image(dtype=torch.float64)
    value = loss(model, x)
    value.backward()
    expected = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    calls = 0

    def counted(forward, *maps):
        nonlocal calls
        calls += 1
        return forward(*maps)

    blocks = [module for module in model.modules() if hasattr(module, "attn") or hasattr(module, "attn_g")]
    for block in blocks:
        block.forward = functools.partial(
            checkpoint, functools.partial(counted, block.forward), use_reentrant=reentrant
        )
    again = loss(model, x)
    assert calls == len(blocks)
    again.backward()
    assert calls == 2 * len(blocks)
    assert torch.equal(again, value)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-9, atol=1e-12)
