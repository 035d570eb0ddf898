"""A map's size belongs to the call that passes it, backward included, and to no other thread or later call."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import checkpoint

import exda_primitives as exda

from .models import train_new_parameters
from .tokens import XCA, SizedBlock

# Both have 36 pixels, so that the number of tokens does not tell them apart.
WIDE, TALL = (4, 9), (9, 4)


def patched(model):
    exda.patch(model.double())
    train_new_parameters(model)
    return model


def tokens(seed=0, count=36):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, 8, generator=generator, dtype=torch.float64)


def gradients(block, wide, tall):
    """Gradients of two maps of different sizes in one backward pass, for both orders of the forward passes."""
    found = []
    for sizes in ((WIDE, TALL), (TALL, WIDE)):
        maps = {size: x.clone().requires_grad_() for size, x in ((WIDE, wide), (TALL, tall))}
        block.zero_grad()
        sum(block(maps[size], *size).square().sum() for size in sizes).backward()
        found.append([each.grad for each in (maps[WIDE], maps[TALL], *block.parameters())])
    return found


class Checkpointed(SizedBlock):
    """Checkpoints its attention alone, which is recomputed after the block's call is over."""

    reentrant: bool

    def forward(self, x, height, width):
        return x + checkpoint(self.attn, self.norm(x), use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


class NonReentrant(Checkpointed):
    reentrant = False


def wrapped(implementation):
    block = patched(SizedBlock())
    block.attn = checkpoint_wrapper(block.attn, checkpoint_impl=implementation)
    return block


def applied():
    block = patched(SizedBlock())
    apply_activation_checkpointing(block, check_fn=lambda module: isinstance(module, exda.ExDAXCAttention))
    return block


CHECKPOINTED = {
    "reentrant": lambda: patched(Reentrant()),
    "not reentrant": lambda: patched(NonReentrant()),
    "wrapped, reentrant": lambda: wrapped(CheckpointImpl.REENTRANT),
    "wrapped": lambda: wrapped(CheckpointImpl.NO_REENTRANT),
    "applied": applied,
}


@pytest.mark.parametrize("make", CHECKPOINTED.values(), ids=CHECKPOINTED)
def test_checkpointed_attention_is_recomputed_with_its_own_size(make):
    block, plain = make(), patched(SizedBlock())
    # Wrappers change the parameters' names, but not their order.
    for ours, theirs in zip(block.parameters(), plain.parameters(), strict=True):
        theirs.data = ours.data
    expected = gradients(plain, tokens(0), tokens(1))
    for found, each in zip(gradients(block, tokens(0), tokens(1)), expected, strict=True):
        assert all(map(torch.allclose, found, each))


def test_grid_changed_before_backward_does_not_affect_recomputation():
    attention, found = patched(Reentrant()).attn, []
    for checkpointed in (False, True):
        outputs = []
        for seed, size in enumerate((WIDE, TALL)):
            attention.grid, x = size, tokens(seed).requires_grad_()
            outputs.append(checkpoint(attention, x, use_reentrant=True) if checkpointed else attention(x))
        attention.zero_grad()
        sum(out.square().sum() for out in outputs).backward()
        found.append([parameter.grad for parameter in attention.parameters()])
    assert all(map(torch.allclose, *found))


def test_recomputation_from_a_clone_raises():
    # The tokens are recomputed from a clone, which nothing links to the call's size.
    block = patched(Reentrant())
    with saved_tensors_hooks(torch.clone, lambda x: x):
        loss = block(tokens().requires_grad_(), *WIDE).sum()
    with pytest.raises(exda.InputError, match="cannot tell the size"):
        loss.backward()


@torch.no_grad()
def test_threads_use_their_own_sizes():
    block = patched(SizedBlock())
    cases = [(tokens(seed), size) for seed, size in enumerate([WIDE, TALL, (6, 6), (2, 18)])]
    expected = [block(x, *size) for x, size in cases]
    # All threads are inside the block's call at once; the hook returns None, which leaves the input as it is.
    barrier = threading.Barrier(len(cases))
    block.norm.register_forward_pre_hook(lambda *_: [barrier.wait(10)][:0] or None)
    with ThreadPoolExecutor(len(cases)) as pool:
        for _ in range(3):
            found = pool.map(lambda case: torch.no_grad()(block)(case[0], *case[1]), cases)
            assert all(map(torch.equal, found, expected))


class TestAfterTheCall:
    """Called by itself afterwards, an attention knows no size, whether the block's call returned or raised."""

    def test_a_call_that_returned(self):
        block = patched(SizedBlock())
        block(tokens(), *WIDE)
        with pytest.raises(exda.InputError, match="cannot tell the size"):
            block.attn(tokens())

    @pytest.mark.parametrize("where", ["before", "inside"])
    def test_a_call_that_raised(self, where):
        block = patched(SizedBlock())

        def fail(*_):
            raise KeyError

        if where == "before":
            handle = block.register_forward_pre_hook(fail, prepend=True)
        else:
            handle = block.norm.register_forward_hook(fail)
        for _ in range(2):
            with pytest.raises(KeyError):
                block(tokens(), *WIDE)
        handle.remove()
        with pytest.raises(exda.InputError, match="cannot tell the size"):
            block.attn(tokens())
        assert block(tokens(), *TALL).shape == (2, 36, 8)

    @torch.no_grad()
    def test_a_nested_call_restores_the_outer_size(self):
        # One attention in two blocks, one of which holds the other.
        class Outer(SizedBlock):
            def __init__(self, attention, inner):
                super().__init__(attention)
                self.inner = inner

            def forward(self, x, height, width):
                return self.attn(self.inner(x, width, height))

        attention = XCA()
        model = nn.ModuleDict({"outer": Outer(attention, SizedBlock(attention))})
        patched(model)
        inner, attention = model["outer"].inner, model["outer"].attn
        x = tokens()
        assert torch.equal(model["outer"](x, *WIDE), attention(inner(x, *TALL), WIDE))


@pytest.mark.usefixtures("fresh_dynamo")
class TestCompiled:
    """The block as one graph, or its attention alone."""

    @pytest.mark.parametrize("part", ["block", "attention", "attention, wrapped"])
    @torch.no_grad()
    def test_sizes_in_turn_and_in_threads(self, part):
        block = patched(SizedBlock())
        x, sizes = tokens(), [WIDE, TALL, (6, 6), WIDE]
        expected = [block(x, *size) for size in sizes]
        if part == "attention, wrapped":
            block.attn = torch.compile(block.attn, backend="eager", fullgraph=True)
        else:
            (block if part == "block" else block.attn).compile(backend="eager", fullgraph=True)
        found = [block(x, *size) for size in sizes]
        with ThreadPoolExecutor(2) as pool:
            found += pool.map(lambda size: torch.no_grad()(block)(x, *size), sizes)
        for each, other in zip(found, 2 * expected, strict=True):
            torch.testing.assert_close(each, other)


@torch.no_grad()
def test_vmap_uses_the_size_of_the_call():
    block = patched(SizedBlock())
    x = torch.stack([tokens(0), tokens(1)])
    found = torch.vmap(lambda each: block(each, *WIDE))(x)
    torch.testing.assert_close(found, torch.stack([block(each, *WIDE) for each in x]))
