"""One module under several names is replaced once and stays shared."""

import pytest
import torch

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, train_new_parameters
from .unchanged import unchanged


def shared():
    attention = MDTA()
    return Net(attention, MDTA(), attention), attention


def test_plan_lists_it_once_with_its_aliases():
    model, _ = shared()
    with unchanged(model):
        report = exda.plan(model)
    assert [(match.name, match.aliases) for match in report.matches] == [
        ("blocks.0.attn", ("blocks.2.attn",)),
        ("blocks.1.attn", ()),
    ]


def test_replaced_once_and_still_shared():
    model, attention = shared()
    report = exda.patch(model)
    first, second, third = (block.attn for block in model.blocks)
    assert first is third
    assert first is not second
    assert report.extra_parameters == sum(parameter.numel() for parameter in exda.new_parameters(model))
    assert attention not in model.modules()


def test_restored_and_still_shared():
    model, attention = shared()
    exda.patch(model)
    assert set(exda.unpatch(model)) == {"blocks.0.attn", "blocks.1.attn", "blocks.2.attn"}
    assert model.blocks[0].attn is attention
    assert model.blocks[2].attn is attention


@torch.no_grad()
def test_patch_preserves_the_output_until_trained():
    model, _ = shared()
    model.eval()
    x = image()
    before = model(x)
    exda.patch(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    train_new_parameters(model)
    assert not torch.equal(model(x), before)


@pytest.mark.parametrize("include", ["blocks.0", "blocks.2"])
def test_any_of_its_names_selects_it(include):
    model, _ = shared()
    exda.patch(model, include=include)
    assert model.blocks[0].attn is model.blocks[2].attn
    assert isinstance(model.blocks[0].attn, exda.ExDAAttention)
    assert not isinstance(model.blocks[1].attn, exda.ExDAAttention)


def test_patched_restores_it_under_all_its_names():
    model, attention = shared()
    with exda.patched(model):
        assert model.blocks[2].attn is not attention
    assert model.blocks[0].attn is attention
    assert model.blocks[2].attn is attention


def test_shared_block_is_patched_and_unpatched_in_both_places():
    model = Net(MDTA())
    model.blocks.append(model.blocks[0])
    exda.patch(model)
    assert isinstance(model.blocks[1].attn, exda.ExDAAttention)
    exda.unpatch(model)
    assert isinstance(model.blocks[1].attn, MDTA)
