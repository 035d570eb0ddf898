"""``extra_macs`` agrees with what PyTorch counts in the reference."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import exda_primitives as exda

CHOICES = {
    "default": {},
    "value alone": {"tokens": 0},
    "replace": {"tokens": 0, "value": "replace"},
    "value after": {"tokens": 2, "value_position": "after"},
    "tokens alone": {"tokens": 3, "value": "none"},
    "GELU": {"tokens": 1, "value": "gelu"},
    "stride 1": {"tokens": 2, "stride": 1},
    "stride 4, channelwise": {"tokens": 4, "stride": 4, "reinject": "channelwise"},
    "nothing": {"tokens": 0, "value": "none"},
}


def counted_macs(module, maps):
    with FlopCounterMode(display=False) as counter, exda.backend("reference"), torch.no_grad():
        module(*maps)
    # PyTorch counts a multiplication and an addition for each.
    return counter.get_total_flops() / 2


# Sizes that strides and heads divide; pooling in ceil mode and padded runs are tested below.
@pytest.mark.parametrize("size", [(8, 8), (4, 12)], ids=lambda size: "H{}-W{}".format(*size))
@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)
def test_extra_macs_are_those_that_pytorch_counts(family, options, size, make_attention, make_maps):
    module = make_attention(family, 8, 2, **options)
    host = make_attention(family, 8, 2, tokens=0, value="none")
    maps = make_maps(family, 1, 8, *size)
    assert module.extra_macs(*size) == counted_macs(module, maps) - counted_macs(host, maps)


def test_pooling_rounds_up(family, classes):
    module = classes[family](8, 2, value="none", stride=4)
    # Phi: 8 channels to one token for each of 2 heads, on the 2 x 3 cells of a 5 x 9 map.
    assert module.extra_macs(5, 9) - module.token_macs(5, 9) == 8 * 2 * (2 * 3)


def test_padded_runs_are_counted(make_attention, make_maps):
    module = make_attention("histogram", 8, 4, stride=1, value="none")
    host = make_attention("histogram", 8, 4, tokens=0, value="none")
    maps = make_maps("histogram", 1, 8, 5, 7)
    assert module.extra_macs(5, 7) == counted_macs(module, maps) - counted_macs(host, maps)
