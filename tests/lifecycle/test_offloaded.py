"""accelerate's offloading, which loads a layer's weights only for its call."""

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules

import exda_primitives as exda

from .networks import CLASSES, FEW_BLOCKS, image, trained


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_offloaded_network_computes_the_same(family, position):
    model = trained(family, config=exda.ExDAConfig(value_position=position), **FEW_BLOCKS).double()
    x = image(dtype=torch.float64)
    expected = model(x)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in exda.new_parameters(model))
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-12)
    assert all(parameter.is_meta for parameter in exda.new_parameters(model))
    remove_hook_from_submodules(model)
