"""Hosts are recognised by what they compute, whatever their names and implementation."""

import copy

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import (
    MDTA,
    Cross,
    Histogram,
    Idle,
    OutputFirst,
    Renamed,
    WrappedMDTA,
    Wrapper,
    depthwise,
    frozen_temperature,
)
from .hosts import with_depthwise as depthwise_as
from .models import Net, image, train_new_parameters
from .unchanged import unchanged

HOSTS = {
    "mdta": ("mdta", MDTA),
    "mdta-one-head": ("mdta", lambda: MDTA(num_heads=1)),
    "mdta-channel-a-head": ("mdta", lambda: MDTA(num_heads=8)),
    "mdta-biases": ("mdta", lambda: MDTA(bias=True)),
    "mdta-renamed": ("mdta", Renamed),
    "mdta-depthwise-in-sequential": ("mdta", depthwise_as(lambda c: nn.Sequential(depthwise(c), nn.Identity()))),
    "mdta-depthwise-in-module": ("mdta", depthwise_as(lambda c: Wrapper(depthwise(c)))),
    "mdta-depthwise-dilated": ("mdta", depthwise_as(lambda c: depthwise(c, dilation=2))),
    "mdta-depthwise-5x5": ("mdta", depthwise_as(lambda c: depthwise(c, kernel=5))),
    "mdta-depthwise-reflect": (
        "mdta",
        depthwise_as(lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c, padding_mode="reflect")),
    ),
    "mdta-all-in-modules": ("mdta", WrappedMDTA),
    "mdta-all-in-sequentials": ("mdta", lambda: WrappedMDTA(nn.Sequential)),
    "mdta-all-in-two": ("mdta", lambda: WrappedMDTA(lambda conv: nn.Sequential(Wrapper(conv), nn.Identity()))),
    "mdta-frozen-temperature": ("mdta", frozen_temperature),
    "mdta-idle-children": ("mdta", Idle),
    "cross": ("cross", Cross),
    "cross-biases": ("cross", lambda: Cross(bias=True)),
    "cross-7x7": ("cross", lambda: Cross(kernel=7)),
    "cross-output-first": ("cross", OutputFirst),
    "histogram": ("histogram", Histogram),
    "histogram-biases": ("histogram", lambda: Histogram(bias=True)),
    "histogram-one-head": ("histogram", lambda: Histogram(num_heads=1)),
}


@pytest.fixture(params=HOSTS)
def case(request):
    family, make = HOSTS[request.param]
    return family, Net(make(), inputs=2 if family == "cross" else 1).eval()


def test_plan_matches_the_host(case):
    family, model = case
    with unchanged(model):
        report = exda.plan(model)
    assert [(match.name, match.family, match.dim) for match in report.matches] == [("blocks.0.attn", family, 8)]
    assert not report.near_misses


@pytest.mark.parametrize("size", [(16, 24), (7, 5)], ids=["16x24", "7x5"])
@torch.no_grad()
def test_patch_preserves_the_output_and_unpatch_restores_the_host(case, size):
    family, model = case
    x, host = image(*size), model.blocks[0].attn
    before = model(x)
    exda.patch(model)
    assert isinstance(model.blocks[0].attn, exda.ExDAModule)
    patched = model(x)
    if family == "histogram":
        assert torch.equal(patched, before)
    else:
        torch.testing.assert_close(patched, before, rtol=0, atol=1e-5)
    exda.unpatch(model)
    assert model.blocks[0].attn is host
    assert torch.equal(model(x), before)


def test_patch_preserves_outputs_gradients_and_keys_in_float64(case):
    _, model = case
    model, x = model.double().requires_grad_(True), image(8, 6, dtype=torch.float64)
    host, names = copy.deepcopy(model), [name for name, _ in model.named_parameters()]
    exda.patch(model)
    assert set(host.state_dict()) < set(model.state_dict())
    found = []
    for network in (host, model):
        output = network(x)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        leaves = [network.get_parameter(name) for name in names]
        found.append([output, *torch.autograd.grad((output * weights).sum(), leaves)])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@torch.no_grad()
def test_new_parameters_affect_the_output(case):
    _, model = case
    x = image()
    before = model(x)
    exda.patch(model)
    train_new_parameters(model)
    assert (model(x) - before).abs().max() > 1e-3


@torch.no_grad()
def test_host_with_a_zero_projection_is_recognised():
    model = Net(MDTA())
    nn.init.zeros_(model.blocks[0].attn.project_out.weight)
    assert [match.name for match in exda.patch(model).matches] == ["blocks.0.attn"]


def test_replacement_leaves_its_input_where_the_host_writes_into_it():
    host = Histogram().eval()
    x = torch.randn(1, 8, 6, 6)
    replacement = exda.from_host(host)
    kept = x.clone()
    replacement(x)
    assert torch.equal(x, kept)
    host(x)
    assert not torch.equal(x, kept)
