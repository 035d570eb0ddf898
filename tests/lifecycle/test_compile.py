"""Whole patched networks under torch.compile: one graph, for all sizes."""

import pytest
import torch
from tests.versions import GRAPHS_OF_EVEN_AND_ODD
from torch._dynamo.testing import CompileCounterWithBackend

import exda_primitives as exda

from .networks import CLASSES, ONE_BLOCK, image, loss, trained

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_no_graph_breaks(family):
    found = torch._dynamo.explain(trained(family, **ONE_BLOCK))(image())
    assert found.graph_count == 1, found.break_reasons
    assert found.graph_break_count == 0, found.break_reasons


def test_one_graph_for_all_sizes_with_equal_gradients():
    model, counter = trained(**ONE_BLOCK).double(), CompileCounterWithBackend("eager")
    whole = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    # No side of 8, which is 1 at an eighth of the size: it gets a separate graph, patched or not.
    for size in ((32, 40), (48, 32)):
        x = image(0, *size, dtype=torch.float64)
        torch.testing.assert_close(whole(x), model(x), rtol=0, atol=1e-12)
        found = torch.autograd.grad(loss(whole, x), exda.new_parameters(model))
        expected = torch.autograd.grad(loss(model, x), exda.new_parameters(model))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert counter.frame_count == GRAPHS_OF_EVEN_AND_ODD
