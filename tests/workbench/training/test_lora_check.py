"""Networks that read the weights of their layers beside calling them are refused before training with LoRA."""

import copy

import pytest
import torch
from tests.workbench.training.lora_hosts import Casting, Reading, TwoLayers, made
from tests.workbench.training.runs import same

import exda_primitives as exda
from exda_primitives.workbench.training.config import LoraConfig
from exda_primitives.workbench.training.lora import add_lora
from exda_primitives.workbench.training.lora_check import check_merging

SMALL = {"dim": 36, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}


def with_lora(net):
    add_lora(net, LoraConfig(2, "all"))
    return net


def test_a_weight_that_is_read_is_named():
    net = with_lora(made(Reading))
    with pytest.raises(exda.ConfigError, match="Reading reads the weights of first beside calling these layers"):
        check_merging(net, torch.rand(1, 3, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("build", [TwoLayers, Casting])
def test_calls_and_reads_that_do_not_compute_are_no_error_and_nothing_changes(build):
    net = with_lora(made(build)).train()
    before, seed = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    check_merging(net, torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert same(dict(before), dict(net.state_dict()))
    assert torch.equal(seed, torch.get_rng_state())
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


def test_rounding_that_changes_a_sorted_order_is_no_error():
    # Histoformer sorts features: in float32 with random weights, rounding changes its output by much.
    torch.manual_seed(0)
    check_merging(with_lora(exda.models.create("histoformer", **SMALL)), torch.rand(1, 3, 16, 16))
