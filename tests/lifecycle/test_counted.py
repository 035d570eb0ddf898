"""Counters of operations count the primitives' too: by hooks on layers, in a trace, in PyTorch's dispatcher."""

import logging

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import exda_primitives as exda

from .networks import CLASSES, ONE_BLOCK, image, network, trained


@pytest.fixture(params=CLASSES)
def pair(request):
    """The network of a family, unpatched and patched."""
    return network(request.param, **ONE_BLOCK), trained(request.param, **ONE_BLOCK)


def layers_of_primitives(model):
    parts = ("value.conv_in", "value.dwconv", "value.conv_out", "token.phi")
    return {name: layer for name, layer in model.named_modules() if name.endswith(parts)}


@torch.no_grad()
def outputs(model, parts):
    found = {}
    handles = [part.register_forward_hook(lambda part, _, out: found.update({part: out})) for part in parts]
    model(image())
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def test_hooks_on_layers_count_the_new_layers(pair):
    """Counts as thop and ptflops do."""

    def counted(model):
        macs = {}

        def count(layer, inputs, output):
            macs[layer] = macs.get(layer, 0) + output.numel() * layer.weight[0].numel()

        handles = [
            layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
        ]
        model(image())
        for handle in handles:
            handle.remove()
        return macs

    host, patched = pair
    attentions = [module for module in patched.modules() if isinstance(module, exda.ExDAModule)]
    sizes = {each: output.shape[2:] for each, output in outputs(patched, attentions).items()}
    found = counted(patched)
    ours = sum(found[layer] for layer in layers_of_primitives(patched).values())
    # ``token_macs`` are products of maps, which no hook on a layer sees.
    assert ours == sum(each.extra_macs(*size) - each.token_macs(*size) for each, size in sizes.items()) > 0
    assert sum(found.values()) - sum(counted(host).values()) == ours


@pytest.mark.filterwarnings("ignore")
def test_fvcore_counts_the_new_layers(pair):
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    host, patched = (FlopCountAnalysis(model, image()) for model in pair)
    assert patched.total() > host.total()
    by_module, layers = patched.by_module(), layers_of_primitives(pair[1])
    given = outputs(pair[1], layers.values())
    for name, layer in layers.items():
        assert by_module[name] == layer.weight.numel() * given[layer][0, 0].numel()


@torch.no_grad()
def test_flop_counter_mode_counts_the_new_layers(pair):
    counts = []
    for model in pair:
        with FlopCounterMode(display=False) as counter:
            model(image())
        counts.append((counter.get_total_flops(), counter.get_flop_counts()))
    (host, _), (patched, by_module) = counts
    assert patched > host
    for name in layers_of_primitives(pair[1]):
        assert sum(by_module[f"{type(pair[1]).__name__}.{name}"].values()) > 0
