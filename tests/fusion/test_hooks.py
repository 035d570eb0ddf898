"""Hooks on a block and on its parts fire as before fuse, and take effect, whatever computes the block."""

import pytest
import torch
from tests.patching.test_hooks import HOOKS, Counter
from torch import nn

import exda_primitives as exda

from .blocks import Block, FeedForwardFirst, Net, OutputFirst, feature, image, small_block

PARTS = ["norm1", "attn", "attn.qkv", "attn.qkv_dwconv", "attn.project_out", "norm2", "ffn", "ffn.project_in"]
PARTS += ["ffn.dwconv", "ffn.project_out"]
CALLED = ["forward", "forward-kwargs", "forward-pre", "full-backward", "full-backward-pre"]


def exercise(model):
    """Runs forward, backward, state_dict and load_state_dict once each."""
    model(image()).sum().backward()
    model.load_state_dict(model.state_dict())


@pytest.fixture
def _modules():
    with exda.backend("torch"):
        yield


@pytest.mark.usefixtures("_modules")
class TestHooksOfABlock:
    """Hooks on a block fire once per call, whether registered before fuse or after, and survive fuse and unfuse."""

    @pytest.mark.parametrize("kind", HOOKS)
    def test_registered_before(self, kind):
        model, counter = Net(Block()), Counter()
        handle = HOOKS[kind](model.blocks[0], counter)
        exda.fuse(model)
        assert counter.since() == 0
        exercise(model)
        assert counter.since() == 1
        exda.unfuse(model)
        exercise(model)
        assert counter.since() == 1
        exda.fuse(model)
        handle.remove()
        exercise(model)
        exda.unfuse(model)
        exercise(model)
        assert counter.since() == 0

    @pytest.mark.parametrize("kind", HOOKS)
    def test_registered_while_fused(self, kind):
        model, counter = Net(Block()), Counter()
        exda.fuse(model)
        handle = HOOKS[kind](model.blocks[0], counter)
        exercise(model)
        assert counter.since() == 1
        exda.unfuse(model)
        exercise(model)
        assert counter.since() == 1
        handle.remove()
        exercise(model)
        assert counter.since() == 0


class TestHooksOfAPart:
    """A hooked part is called: its step, or just the part, is left to modules; the other step stays on kernels."""

    @pytest.mark.parametrize("kind", CALLED)
    @pytest.mark.parametrize("part", [part for part in PARTS if "." not in part] + ["ffn.dwconv"])
    @pytest.mark.usefixtures("ran_as_formulas")
    def test_hook_fires_once(self, part, kind):
        model, counter = nn.Sequential(small_block()), Counter()
        x = feature(2, 3).requires_grad_()
        before = HOOKS[kind](model[0].get_submodule(part), counter)
        exda.fuse(model)
        assert counter.since() == 0
        model(x).sum().backward()
        assert counter.since() == 1
        before.remove()
        after = HOOKS[kind](model[0].get_submodule(part), counter)
        model(x).sum().backward()
        assert counter.since() == 1
        after.remove()
        model(x).sum().backward()
        assert counter.since() == 0

    @pytest.mark.parametrize("patched", [False, True])
    @torch.no_grad()
    def test_hooked_convolutions_of_the_attention_leave_it_on_kernels(self, patched, ran):
        # Each hooked convolution is called; the rest of the step stays on kernels.
        model, counter = nn.Sequential(small_block()).double(), Counter()
        if patched:
            exda.patch(model)
        exda.fuse(model)
        for part in ("qkv", "qkv_dwconv", "project_out"):
            getattr(model[0].attn, part).register_forward_hook(lambda module, _, out: counter() or 1.5 * out)
        x = feature(2, 3, dtype=torch.float64)
        found = model(x)
        assert counter.since() == 3
        assert ran == ["attention_step", "gated_step"]
        with exda.backend("torch"):
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("part", ["value", "token", "value.conv_in", "value.dwconv", "value.conv_out", "token.phi"])
    @torch.no_grad()
    def test_hooked_primitives_leave_the_step_to_modules(self, part, ran_as_formulas):
        model, counter = nn.Sequential(small_block()).double(), Counter()
        exda.patch(model, init="paper")
        exda.fuse(model)
        x = feature(2, 3, dtype=torch.float64)
        before = model(x)
        assert ran_as_formulas == ["attention_step", "gated_step"]
        model[0].attn.get_submodule(part).register_forward_hook(lambda module, _, out: counter() or 1.5 * out)
        found = model(x)
        assert counter.since() == 1
        assert ran_as_formulas == ["attention_step", "gated_step", "gated_step"]
        assert not torch.allclose(found, before)
        step = exda.backend_report(model, 8, 8).parts[0]
        assert "has to be called" in step.reason
        with exda.backend("reference"):
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("part", PARTS)
    @pytest.mark.usefixtures("ran_as_formulas")
    @torch.no_grad()
    def test_hook_may_change_the_output(self, part):
        model = nn.Sequential(small_block()).double()
        model[0].get_submodule(part).register_forward_hook(lambda module, maps, out: 2 * out)
        x = feature(2, 3, dtype=torch.float64)
        before = model(x)
        exda.fuse(model)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)


class TestHooksOfWhatKernelsReplace:
    """Activations and dropouts are part of a kernel, unless they are hooked."""

    def test_hooked_activation_is_called(self, ran_as_formulas):
        model, counter = Net(FeedForwardFirst(ffn=OutputFirst)), Counter()
        exda.fuse(model)
        handle = model.blocks[0].ffn.act.register_forward_hook(counter)
        model(image())
        assert counter.since() == 1
        assert ran_as_formulas == ["attention_step"]
        handle.remove()
        model(image())
        assert counter.since() == 0
        assert ran_as_formulas == ["attention_step", "gated_step", "attention_step"]

    def test_hooked_dropout_of_the_attention_is_called(self, ran_as_formulas):
        model, counter = Net(Block()), Counter()
        attention = model.blocks[0].attn
        attention.drop = nn.Identity()
        forward = type(attention).forward
        attention.__class__ = type(
            "Dropping", (type(attention),), {"forward": lambda self, x: self.drop(forward(self, x))}
        )
        exda.fuse(model)
        attention.drop.register_forward_hook(counter)
        model(image())
        assert counter.since() == 1
        assert ran_as_formulas == ["gated_step"]

    def test_replaced_forward_is_called(self, ran_as_formulas):
        model, counter = Net(Block()), Counter()
        exda.fuse(model)
        for part in (model.blocks[0].norm1, model.blocks[0].ffn.dwconv):

            def forward(x, original=part.forward):
                counter()
                return original(x)

            part.forward = forward
        model(image())
        assert counter.since() == 2
        assert ran_as_formulas == []
