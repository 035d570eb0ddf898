"""Modules that a model refers to otherwise than as children: patch and fuse leave them alone, and say so."""

from functools import partial
from types import MethodType

import pytest
import torch
from tests.fusion import blocks as fusion
from torch import nn

import exda_primitives as exda

from .hosts import MDTA
from .models import image, train_new_parameters, two_blocks
from .unchanged import unchanged


def nested(held):
    """Lists and dictionaries that hold themselves, too."""
    outer = [{"key": (held, {held})}]
    outer.append(outer)
    return outer


def closure(held):
    def call(x):
        return inner(x)

    def inner(x):
        return held(x)

    return call


REFERENCES = {
    "attribute": lambda module: module,
    "method": lambda module: module.forward,
    "partial": partial,
    "partial of a method": lambda module: partial(print, end=module.forward),
    "function bound to it": lambda module: MethodType(print, module),
    "list": lambda module: [module],
    "nested": nested,
    "closure": closure,
}


def refer(owner, held):
    # Past ``__setattr__``, which would register a module as a child.
    vars(owner)["other"] = held


@pytest.mark.parametrize("bind", REFERENCES.values(), ids=REFERENCES)
@pytest.mark.parametrize("owner", ["", "blocks.1", "blocks.1.act"])
def test_attention_that_is_referred_to_elsewhere_is_a_near_miss(bind, owner):
    model, x = two_blocks(), image(5, 7)
    model.blocks[1].act = nn.GELU()
    refer(model.get_submodule(owner), bind(model.blocks[0].attn))
    before = model(x)
    report = exda.patch(model)
    assert [match.name for match in report.matches] == ["blocks.1.attn"]
    (near_miss,) = report.near_misses
    assert (near_miss.name, near_miss.family) == ("blocks.0.attn", "mdta")
    path = f"{owner}.other" if owner else "other"
    assert near_miss.reason.startswith(f"{path!r} refers to it as well, and would go on calling the original")
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


def test_all_referred_to_elsewhere_is_refused():
    model = two_blocks()
    refer(model, [block.attn for block in model.blocks])
    with unchanged(model), pytest.raises(exda.NoMatchError, match="'other' refers to it as well"):
        exda.patch(model)


class Own(nn.Module):
    """Refers to an attention where replacing it is no problem: in itself, its parts, and by what calls its parent."""

    def __init__(self):
        super().__init__()
        self.blocks = two_blocks().blocks
        self.tail = nn.Identity()
        for block in self.blocks:
            refer(block.attn, [block.attn.forward])
            refer(block.attn.qkv, block.attn)
            refer(block, lambda x, block=block: block.attn(x))
            refer(self.tail, (block, block.forward))
        vars(self.tail)["children_of_another"] = self.blocks[0]._modules

    def forward(self, x):
        for block in self.blocks:
            x = x + block.other(x)
        return x


@torch.no_grad()
def test_references_that_the_replacement_reaches_are_no_obstacle():
    model, x = Own().eval(), torch.randn(1, 8, 5, 7)
    before = model(x)
    report = exda.patch(model)
    assert len(report.matches) == 2
    assert report.near_misses == ()
    train_new_parameters(model)
    assert not torch.allclose(model(x), before, atol=1e-3)
    assert len(exda.unpatch(model)) == 2
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bind", REFERENCES.values(), ids=REFERENCES)
def test_block_that_is_referred_to_elsewhere_is_not_fused(bind):
    model = fusion.two_blocks()
    refer(model, bind(model.blocks[0]))
    report = exda.fuse(model)
    assert [match.name for match in report.blocks] == ["blocks.1"]
    assert [(each.name, each.reason) for each in report.left_alone] == [
        ("blocks.0", "'other' refers to it as well, and would go on calling the original")
    ]


def test_what_fuse_keeps_is_no_reference_elsewhere():
    """A fused block refers to the nn.Sequential that it is in, and so to an attention there."""
    model = nn.Sequential(*fusion.two_blocks().blocks, MDTA())
    assert len(exda.fuse(model).blocks) == 2
    assert [match.name for match in exda.patch(model).matches] == ["0.attn", "1.attn", "2"]
    assert len(exda.unfuse(model)) == 2
    assert len(exda.fuse(model).blocks) == 2
