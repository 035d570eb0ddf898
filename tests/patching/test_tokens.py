"""Attentions on tokens: recognised by what they compute, look-alikes refused with the cause."""

import re

import pytest
import torch
from timm.layers import Attention
from timm.models.davit import ChannelAttention, ChannelAttentionV2
from timm.models.swin_transformer import WindowAttention
from torch import nn

import exda_primitives as exda

from .models import image, train_new_parameters
from .tokens import HOSTS, LOOKALIKES, XCA, MapBlock, Net, SizedBlock, ViT
from .unchanged import unchanged

BLOCKS = pytest.mark.parametrize("block", [SizedBlock, MapBlock])
SIZES = pytest.mark.parametrize("size", [(16, 24), (7, 5), (1, 11), (13, 1)], ids=lambda size: "{}x{}".format(*size))


@pytest.fixture(params=HOSTS)
def host(request):
    return HOSTS[request.param]()


@pytest.fixture(params=LOOKALIKES)
def lookalike(request):
    make, cause = LOOKALIKES[request.param]
    return make(), cause


@BLOCKS
def test_plan_matches_and_counts_as_patch_does(host, block):
    model = Net(block(host))
    with unchanged(model):
        report = exda.plan(model)
    (match,) = report.matches
    assert (match.name, match.family, match.dim) == ("blocks.0.attn", "xca", 8)
    assert match.heads == next(p for p in host.parameters(recurse=False)).numel()
    assert not report.near_misses
    exda.patch(model)
    assert match.extra_parameters == sum(p.numel() for p in exda.new_parameters(model))
    assert match.extra_macs_per_pixel == model.blocks[0].attn.extra_macs(1024, 1024) / 1024**2


@BLOCKS
@SIZES
@torch.no_grad()
def test_patch_preserves_the_output_until_trained_and_unpatch_restores_it(host, block, size):
    model = Net(block(host)).eval()
    x = image(*size)
    before = model(x)
    with unchanged(model, random_numbers=False):
        exda.patch(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
        train_new_parameters(model)
        assert (model(x) - before).abs().max() > 1e-3
        exda.unpatch(model)
    assert model.blocks[0].attn is host
    assert torch.equal(model(x), before)


def test_patch_refuses_a_lookalike_with_the_cause(lookalike):
    attention, cause = lookalike
    model = Net(SizedBlock(attention))
    with unchanged(model), pytest.raises(exda.ExDAError) as caught:
        exda.patch(model)
    assert re.search(rf"blocks\.0\.attn.*{cause}", str(caught.value))


@pytest.mark.parametrize(
    "make",
    [
        ViT,
        lambda: Attention(8, num_heads=2),
        lambda: WindowAttention(8, num_heads=2, window_size=4),
    ],
    ids=["ViT", "timm's ViT", "Swin"],
)
def test_attentions_over_tokens_are_no_near_miss(make):
    model = nn.Sequential(make())
    with unchanged(model):
        report = exda.plan(model)
    assert not report.matches
    assert not report.near_misses


@pytest.mark.parametrize("kind", [ChannelAttention, ChannelAttentionV2])
def test_channel_attention_without_a_temperature_is_a_near_miss(kind):
    (miss,) = exda.plan(nn.Sequential(kind(8, num_heads=2))).near_misses
    assert (miss.family, miss.type) == ("xca", kind.__name__)
    assert re.search(r"softmax over channels, 4 x 4.*no temperature \(heads, 1, 1\)", miss.reason)


def test_linear_layers_of_other_sizes_are_no_near_miss():
    assert not exda.plan(nn.ModuleList([nn.ModuleDict({"a": nn.Linear(8, 24), "b": nn.Linear(24, 8)})])).near_misses


def test_dropout_of_zero_in_training_mode_is_accepted():
    """With p = 0 the host drops nothing in training either, so that there is nothing to refuse."""
    model = Net(SizedBlock(XCA(attn_drop=0.0))).train()
    assert len(exda.patch(model).matches) == 1
    assert model.blocks[0].attn.training


@torch.no_grad()
def test_from_host_preserves_the_output_given_the_size():
    host, x = XCA(), torch.randn(2, 35, 8)
    with unchanged(host, random_numbers=False):
        replacement = exda.from_host(host)
    torch.testing.assert_close(replacement(x, (5, 7)), host(x), rtol=0, atol=1e-5)
    with pytest.raises(exda.InputError, match="grid"):
        replacement(x)
    replacement.grid = (7, 5)
    torch.testing.assert_close(replacement(x), host(x), rtol=0, atol=1e-5)
    assert replacement.release() is host


@pytest.mark.parametrize("value", ["replace", "gelu", "sigmoid"])
def test_verification_passes_for_values_without_an_identity_start(value):
    assert exda.patch(Net(MapBlock()), exda.ExDAConfig(value=value, init="paper")).applied


def test_verification_uses_the_tokens(monkeypatch):
    right = exda.ExDAXCAttention.forward

    def wrong_with_tokens(self, x, grid=None):
        return right(self, x, grid) if self.token is None else right(self, x, grid) * 1.001

    monkeypatch.setattr(exda.ExDAXCAttention, "forward", wrong_with_tokens)
    model = Net(SizedBlock(), MapBlock())
    with unchanged(model, random_numbers=False), pytest.raises(exda.VerificationError, match=r"blocks\.0\.attn"):
        exda.patch(model)
