"""new_parameters lists what ExDA added, each parameter once; train_only_new freezes everything else."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, two_blocks
from .unchanged import unchanged


def patched():
    model = two_blocks()
    exda.patch(model, init="paper")
    return model


def distinct(parameters):
    return len({id(parameter) for parameter in parameters}) == len(parameters)


@pytest.mark.parametrize("name", ["value", "token", "alpha", "token_gate"])
def test_parameter_shared_by_two_attentions_is_listed_once(name):
    model = patched()
    first, second = (block.attn for block in model.blocks)
    before = len(exda.new_parameters(model))
    setattr(second, name, getattr(first, name))
    new = exda.new_parameters(model)
    assert distinct(new)
    assert len(new) < before
    torch.optim.AdamW(exda.new_parameters(model))


def test_layer_shared_within_an_attention_is_listed_once():
    model = patched()
    attention = model.blocks[0].attn
    attention.value.conv_out = attention.value.conv_in
    assert distinct(exda.new_parameters(model))


class TestTrainOnlyNew:
    """Everything else is frozen: clipping and optimizers over all parameters act on the new ones alone."""

    def test_returns_what_is_trained(self):
        model = patched()
        returned = exda.train_only_new(model)
        assert distinct(returned)
        assert [id(p) for p in returned] == [id(p) for p in exda.new_parameters(model)]
        assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in returned}

    def test_clipping_over_all_parameters_clips_what_is_trained(self):
        model, largest = patched(), 0.01
        x = image()
        new = exda.train_only_new(model)
        optimizer = torch.optim.SGD(new, lr=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            # Times 100, so that the gradients exceed the norm to which they are clipped.
            model(x).square().mean().mul(100).backward()
            nn.utils.clip_grad_norm_(model.parameters(), largest)
        norm = torch.stack([p.grad.norm() for p in new if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(largest, rel=1e-4)

    def test_gradients_from_before_are_dropped(self):
        model = patched()
        model(image()).mean().backward()
        new = {id(p) for p in exda.train_only_new(model)}
        assert all(p.grad is None for p in model.parameters() if id(p) not in new)

    def test_an_optimizer_over_everything_moves_the_new_ones_alone(self):
        model = patched()
        new = {id(p) for p in exda.train_only_new(model)}
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model(image()).square().mean().backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, before[name]) is (id(parameter) not in new), name

    def test_what_was_frozen_before_is_trained(self):
        model = patched()
        model.requires_grad_(False)
        assert all(parameter.requires_grad for parameter in exda.train_only_new(model))

    def test_requires_grad_undoes_it(self):
        model = patched()
        exda.train_only_new(model)
        model.requires_grad_(True)
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_applies_to_a_partly_patched_model_with_several_configurations(self):
        model = Net(MDTA(), MDTA(), MDTA())
        exda.patch(model, tokens=2, value="none", include="blocks.0")
        exda.patch(model, tokens=0, include="blocks.1")
        exda.train_only_new(model)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name.split(".")[3] for name in trained if name.startswith("blocks.0")} == {
            "token",
            "alpha",
            "token_gate",
        }
        assert {name.split(".")[3] for name in trained if name.startswith("blocks.1")} == {"value"}
        assert not any(name.startswith(("blocks.2", "head", "tail")) for name in trained)

    def test_buffers_are_still_updated(self):
        model = nn.Sequential(nn.BatchNorm2d(3), patched()).train()
        exda.train_only_new(model)
        model(image())
        assert model[0].num_batches_tracked == 1

    def test_applies_to_built_in_attentions(self):
        attention = exda.ExDAAttention(8, 2)
        new = exda.train_only_new(Net(attention))
        assert {id(p) for p in new} == {id(p) for p in attention.new_parameters().values()}
        assert not attention.qkv.weight.requires_grad

    def test_wrapped_model_is_refused(self):
        model = patched()
        wrapped = nn.DataParallel(model)
        with unchanged(model), pytest.raises(exda.WrappedModelError, match=r"exda\.train_only_new\(model\.module\)"):
            exda.train_only_new(wrapped)

    def test_applies_inside_a_compiled_model(self):
        model = patched()
        new = exda.train_only_new(torch.compile(model, backend="eager"))
        assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in new}

    @pytest.mark.parametrize("make", [two_blocks, lambda: Net(exda.ExDAAttention(8, 2, tokens=0, value="gelu"))])
    def test_model_without_new_parameters_is_refused(self, make):
        model = make()
        with unchanged(model), pytest.raises(exda.NotPatchedError, match=r"Net holds no parameters.*exda\.patch"):
            exda.train_only_new(model)
