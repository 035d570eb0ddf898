"""Attentions whose layers were adapted, wrapped, normalised or quantised before patching: matched or explained."""

import copy

import pytest
import torch
from tests.primitives.altered import Adapter
from torch import nn
from torch.nn.utils import parametrizations, prune

import exda_primitives as exda

from . import tokens
from .hosts import MDTA, Cross, Histogram, Wrapper
from .models import Net, image, train_new_parameters
from .tokens import XCA

HOSTS = {
    "mdta": lambda: Net(MDTA()),
    "cross": lambda: Net(Cross(), inputs=2),
    "histogram": lambda: Net(Histogram()),
    "xca": tokens.two_blocks,
}


def layers(model):
    """The first attention's children with parameters, as (name, child)."""
    return [(name, child) for name, child in model.blocks[0].attn.named_children() if [*child.parameters()]]


def adapted(model):
    for name, layer in layers(model):
        setattr(model.blocks[0].attn, name, Adapter(layer))


def with_dropout(model):
    for name, layer in layers(model):
        setattr(model.blocks[0].attn, name, nn.Sequential(layer, nn.Dropout(0.1)).eval())


def wrapped(model):
    """Each layer in a container, as MONAI's 1x1 convolutions ``qkv.conv``."""
    for name, layer in layers(model):
        holder = nn.Sequential()
        holder.add_module("conv", layer)
        setattr(model.blocks[0].attn, name, holder)


def in_a_module(model):
    for name, layer in layers(model):
        setattr(model.blocks[0].attn, name, Wrapper(layer))


def weight_norm(model):
    for _, layer in layers(model):
        parametrizations.weight_norm(layer)


def weight_norm_by_hook(model):
    for _, layer in layers(model):
        nn.utils.weight_norm(layer)


def spectral_norm_by_hook(model):
    for _, layer in layers(model):
        nn.utils.spectral_norm(layer)
    with torch.enable_grad():
        # After one forward, the weights are no longer autograd leaves.
        model(image(dtype=torch.float64))


def pruned(model):
    for _, layer in layers(model):
        prune.l1_unstructured(layer, "weight", amount=0.5)


def hooked(model):
    for _, layer in layers(model):
        layer.register_forward_hook(lambda _, inputs, output: 2 * output)


CHANGES = [
    adapted,
    wrapped,
    in_a_module,
    weight_norm,
    weight_norm_by_hook,
    spectral_norm_by_hook,
    pruned,
    hooked,
    with_dropout,
]


@pytest.fixture(params=HOSTS)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    torch.manual_seed(0)
    return HOSTS[family]().double().eval()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@torch.no_grad()
def test_changed_layers_are_matched_and_still_called(family, model, change):
    change(model)
    x, held = image(dtype=torch.float64), [child for _, child in layers(model)]
    before = model(x)
    assert {match.family for match in exda.patch(model).matches} == {family}
    torch.testing.assert_close(model(x), before, rtol=1e-9, atol=1e-9)
    train_new_parameters(model)
    found = model(x)
    assert not torch.allclose(found, before, atol=1e-3)
    with exda.backend("reference"):
        torch.testing.assert_close(model(x), found, rtol=1e-9, atol=1e-9)
    exda.unpatch(model)
    assert [child for _, child in layers(model)] == held
    assert torch.equal(model(x), before)


@torch.no_grad()
def test_lookalike_with_adapters_is_still_refused():
    class Mean(MDTA):
        def forward(self, x):
            return super().forward(x.mean((2, 3), keepdim=True).expand_as(x))

    model = Net(Mean())
    adapted(model)
    (near_miss,) = exda.plan(model).near_misses
    assert "output differs" in near_miss.reason


def test_sequential_with_two_parameterised_layers_is_not_matched():
    model = Net(MDTA())
    attention = model.blocks[0].attn
    attention.qkv = nn.Sequential(attention.qkv, nn.BatchNorm2d(24))
    assert not exda.plan(model).matches


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
def test_dynamically_quantised_attention_is_a_near_miss():
    model = torch.ao.quantization.quantize_dynamic(tokens.two_blocks(), {nn.Linear})
    report = exda.plan(model)
    assert not report.matches
    assert [each.name for each in report.near_misses] == ["blocks.0.attn", "blocks.1.attn"]
    for each in report.near_misses:
        assert "qkv (Linear), proj (Linear): quantised" in each.reason
        assert "patch before" in each.reason


class Shards(torch.Tensor):
    """A tensor that wraps another one, as torchao's and DTensor do."""

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __tensor_flatten__(self):
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        raise NotImplementedError(func)


@pytest.mark.parametrize(("make", "name"), [(MDTA, "qkv"), (XCA, "proj")], ids=["mdta", "xca"])
def test_tensor_subclass_weights_are_a_near_miss(make, name):
    attention = make()
    layer = getattr(attention, name)
    layer.weight = nn.Parameter(Shards(layer.weight.detach()))
    model = nn.Sequential(attention)
    (near_miss,) = exda.plan(model).near_misses
    assert f"{name}.weight is quantised or sharded (Shards)" in near_miss.reason


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
@torch.no_grad()
def test_patched_model_can_be_quantised():
    torch.manual_seed(0)
    model, x = tokens.two_blocks().eval(), image()
    exda.patch(model)
    train_new_parameters(model)
    expected = model(x)
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    assert not torch.equal(quantised(x), expected)
    torch.testing.assert_close(quantised(x), expected, rtol=0, atol=0.1 * expected.abs().max().item())
    assert "ExDAXCAttention(dim=8" in repr(quantised)
    assert len(exda.backend_report(quantised, 8, 8).parts) == 2
