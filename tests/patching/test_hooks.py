"""Hooks belong to the module's place in the model: they fire before, during and after a patch."""

import pytest
import torch

import exda_primitives as exda

from .models import image, two_blocks
from .unchanged import unchanged

HOOKS = {
    "forward": lambda module, hook: module.register_forward_hook(hook),
    "forward-kwargs": lambda module, hook: module.register_forward_hook(hook, with_kwargs=True),
    "forward-prepended": lambda module, hook: module.register_forward_hook(hook, prepend=True),
    "forward-always": lambda module, hook: module.register_forward_hook(hook, always_call=True),
    "forward-pre": lambda module, hook: module.register_forward_pre_hook(hook),
    "forward-pre-kwargs": lambda module, hook: module.register_forward_pre_hook(hook, with_kwargs=True),
    "full-backward": lambda module, hook: module.register_full_backward_hook(hook),
    "full-backward-pre": lambda module, hook: module.register_full_backward_pre_hook(hook),
    "state-dict-post": lambda module, hook: module.register_state_dict_post_hook(hook),
    "state-dict-pre": lambda module, hook: module.register_state_dict_pre_hook(hook),
    "load-state-dict-pre": lambda module, hook: module.register_load_state_dict_pre_hook(hook),
    "load-state-dict-post": lambda module, hook: module.register_load_state_dict_post_hook(hook),
}


class Counter:
    """A hook that counts its calls; ``since`` returns the count and resets it."""

    def __init__(self):
        self.calls = 0

    def __call__(self, *_):
        self.calls += 1

    def since(self):
        calls, self.calls = self.calls, 0
        return calls


def exercise(model):
    """Calls forward, backward, state_dict and load_state_dict once each."""
    model(image()).sum().backward()
    model.load_state_dict(model.state_dict())


@pytest.fixture(params=HOOKS)
def register(request):
    return HOOKS[request.param]


def test_hook_registered_before_fires_while_patched_and_after(register):
    model, counter = two_blocks(), Counter()
    register(model.blocks[0].attn, counter)
    exda.patch(model)
    assert counter.since() == 0
    exercise(model)
    assert counter.since() == 1
    exda.unpatch(model)
    exercise(model)
    assert counter.since() == 1


def test_handle_from_before_removes_the_hook_from_both_modules(register):
    model, counter = two_blocks(), Counter()
    handle = register(model.blocks[0].attn, counter)
    exda.patch(model)
    handle.remove()
    exercise(model)
    exda.unpatch(model)
    exercise(model)
    assert counter.since() == 0


def test_hook_registered_while_patched_survives_unpatch(register):
    model, counter = two_blocks(), Counter()
    exda.patch(model)
    handle = register(model.blocks[0].attn, counter)
    exercise(model)
    assert counter.since() == 1
    exda.unpatch(model)
    exercise(model)
    assert counter.since() == 1
    handle.remove()
    exercise(model)
    assert counter.since() == 0


@pytest.mark.parametrize("part", ["qkv", "qkv_dwconv", "project_out"])
@pytest.mark.parametrize("kind", ["forward", "forward-pre", "full-backward", "full-backward-pre"])
def test_hook_on_an_inner_layer_fires(part, kind):
    model, counter = two_blocks(), Counter()
    HOOKS[kind](getattr(model.blocks[0].attn, part), counter)
    exda.patch(model)
    assert counter.since() == 0
    exercise(model)
    assert counter.since() == 1


def test_replaced_forward_of_an_inner_layer_is_used():
    model, counter = two_blocks(), Counter()
    exda.patch(model)
    layer = model.blocks[0].attn.project_out
    original = layer.forward

    def forward(x):
        counter()
        return original(x)

    layer.forward = forward
    exercise(model)
    assert counter.since() == 1


@torch.no_grad()
def test_a_hook_may_change_the_output():
    model = two_blocks()
    model.blocks[0].attn.register_forward_hook(lambda module, maps, out: 2 * out)
    x = image()
    before = model(x)
    exda.patch(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


def test_order_of_hooks_is_kept():
    model, order = two_blocks(), []
    attention = model.blocks[0].attn
    attention.register_forward_hook(lambda *_: order.append("first"))
    attention.register_forward_hook(lambda *_: order.append("second"))
    exda.patch(model)
    model.blocks[0].attn.register_forward_hook(lambda *_: order.append("third"))
    model(image())
    assert order == ["first", "second", "third"]


@pytest.mark.parametrize("where", ["", "blocks.0", "blocks.0.attn", "blocks.0.attn.qkv"], ids=repr)
def test_planning_and_patching_call_no_hook(register, where):
    model, counter = two_blocks(), Counter()
    register(model.get_submodule(where), counter)
    with unchanged(model):
        exda.plan(model)
    exda.patch(model)
    exda.unpatch(model)
    assert counter.since() == 0
