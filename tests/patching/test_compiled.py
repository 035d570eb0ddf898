"""Compiled models are patched inside, and recompile by themselves."""

import pytest
import torch

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, train_new_parameters, two_blocks
from .unchanged import unchanged

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def compiled(module):
    return torch.compile(module, backend="eager")


@torch.no_grad()
def test_patch_reaches_inside_and_notes_it():
    inner = two_blocks().eval()
    model = compiled(inner)
    x = image()
    before = model(x)
    report = exda.patch(model)
    assert [match.name for match in report.matches] == ["blocks.0.attn", "blocks.1.attn"]
    assert any("compiled" in note for note in report.notes)
    assert exda.is_patched(inner)
    assert exda.is_patched(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    train_new_parameters(model)
    torch.testing.assert_close(model(x), inner(x), rtol=0, atol=1e-5)
    assert (model(x) - before).abs().max() > 1e-3
    exda.unpatch(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_model_compiled_in_place_recompiles():
    model = two_blocks().eval()
    model.compile(backend="eager")
    x = image()
    before = model(x)
    assert len(exda.patch(model).matches) == 2
    train_new_parameters(model)
    assert (model(x) - before).abs().max() > 1e-3


def test_plan_notes_that_the_model_is_compiled():
    model = compiled(two_blocks())
    with unchanged(model):
        assert any("compiled" in note for note in exda.plan(model).notes)


def test_patterns_need_no_orig_mod_prefix():
    model = compiled(two_blocks())
    assert [match.name for match in exda.patch(model, include="blocks.1").matches] == ["blocks.1.attn"]


def test_patched_reaches_inside():
    model = compiled(two_blocks())
    with unchanged(model, random_numbers=False), exda.patched(model):
        assert exda.is_patched(model)


def test_attention_compiled_by_itself_is_a_near_miss():
    model = Net(MDTA(), MDTA())
    model.blocks[0].attn = compiled(model.blocks[0].attn)
    wrapper = model.blocks[0].attn
    report = exda.patch(model)
    assert [match.name for match in report.matches] == ["blocks.1.attn"]
    (near_miss,) = report.near_misses
    assert near_miss.name.startswith("blocks.0.attn")
    assert "patch before compiling" in near_miss.reason
    assert model.blocks[0].attn is wrapper


def test_model_with_compiled_attentions_only_raises():
    model = Net(compiled(MDTA()))
    with unchanged(model), pytest.raises(exda.NoMatchError, match="patch before compiling"):
        exda.patch(model)


@torch.no_grad()
def test_attention_in_a_compiled_block_is_patched():
    model = two_blocks().eval()
    model.blocks[0] = compiled(model.blocks[0])
    x = image()
    before = model(x)
    assert len(exda.patch(model).matches) == 2
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
    train_new_parameters(model)
    assert (model(x) - before).abs().max() > 1e-3


def test_compiled_root_attention_is_refused():
    model = compiled(MDTA())
    with unchanged(model), pytest.raises(exda.RootModuleError, match=r"exda\.from_host"):
        exda.patch(model)
