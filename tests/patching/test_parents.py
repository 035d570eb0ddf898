"""ParentHook passes a map's size (H, W) from a block to its attention: what it reads, when it exists."""

import copy
import pickle

import pytest
import torch
from torch import nn

import exda_primitives as exda
from exda_primitives.patching import ParentHook

from .models import image, train_new_parameters
from .tokens import XCA, MapBlock, Net, SizedBlock, two_blocks
from .unchanged import unchanged


def hooks_of(module):
    before = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, ParentHook)]
    after = [hook.__self__ for hook in module._forward_hooks.values() if hasattr(hook, "__self__")]
    assert after == before
    return before


def patched(model):
    model.eval()
    exda.patch(model)
    train_new_parameters(model)
    return model


class Sized(SizedBlock):
    """Base of the blocks below, which differ only in the signature of forward."""

    def attend(self, x):
        return x + self.attn(self.norm(x))


class SizesFirst(Sized):
    def forward(self, height, width, x):
        return self.attend(x)


class KeywordOnly(Sized):
    def forward(self, x, *, height, width):
        return self.attend(x)


class WithMask(Sized):
    def forward(self, x, mask, height, width, flag=False):
        return self.attend(x)


class Pair(Sized):
    def forward(self, x, size):
        return self.attend(x)


class Map(Sized):
    def forward(self, x):
        return self.attend(x.flatten(2).mT)


class Tokens(Sized):
    def forward(self, x):
        return self.attend(x)


class Count(Sized):
    def forward(self, x, count):
        return self.attend(x)


class Step(Sized):
    def forward(self, x, height, width, step):
        return self.attend(x)


class AnyKeywords(Sized):
    def forward(self, x, **sizes):
        return self.attend(x)


class Optional(Sized):
    def forward(self, x, height=None, width=None):
        return self.attend(x)


def as_map(x):
    return x.mT.unflatten(2, (5, 7))


CALLS = {
    "positional": (SizedBlock, lambda block, x: block(x, 5, 7)),
    "keywords": (SizedBlock, lambda block, x: block(x, height=5, width=7)),
    "keywords in another order": (SizedBlock, lambda block, x: block(width=7, height=5, x=x)),
    "mixed": (SizedBlock, lambda block, x: block(x, 5, width=7)),
    "sizes first": (SizesFirst, lambda block, x: block(5, 7, x)),
    "keyword-only": (KeywordOnly, lambda block, x: block(x, width=7, height=5)),
    "beside a mask": (WithMask, lambda block, x: block(x, None, 5, 7)),
    "beside a flag": (WithMask, lambda block, x: block(x, x, 5, 7, True)),
    "pair": (Pair, lambda block, x: block(x, (5, 7))),
    "size of a tensor": (Pair, lambda block, x: block(x, x.new_empty(5, 7).shape)),
    "map": (Map, lambda block, x: block(as_map(x))),
    "map by name": (Map, lambda block, x: block(x=as_map(x))),
    "channels-last map": (Map, lambda block, x: block(as_map(x).contiguous(memory_format=torch.channels_last))),
}
UNKNOWN = {
    "tokens alone": (Tokens, lambda block, x: block(x)),
    "one integer": (Count, lambda block, x: block(x, 36)),
    "three integers": (Step, lambda block, x: block(x, 4, 9, 1)),
    "floats": (SizedBlock, lambda block, x: block(x, 4.0, 9.0)),
    "keywords without an order": (AnyKeywords, lambda block, x: block(x, width=9, height=4)),
}


@pytest.mark.parametrize(("make", "call"), CALLS.values(), ids=CALLS)
@torch.no_grad()
def test_size_is_read_from_the_call(make, call):
    block, x = patched(make()), torch.randn(2, 35, 8)
    expected = x + block.attn(block.norm(x), (5, 7))
    assert torch.equal(call(block, x), expected)
    assert not torch.allclose(x + block.attn(block.norm(x), (7, 5)), expected)


@pytest.mark.parametrize(("make", "call"), UNKNOWN.values(), ids=UNKNOWN)
@torch.no_grad()
def test_ambiguous_size_is_not_guessed(make, call):
    block, x = patched(make()), torch.randn(2, 36, 8)
    with pytest.raises(exda.InputError, match=r"^attn: .*cannot tell the size.*grid = \(H, W\)"):
        call(block, x)
    block.attn.grid = (4, 9)
    assert torch.equal(call(block, x), x + block.attn(block.norm(x), (4, 9)))


@torch.no_grad()
def test_size_of_an_earlier_call_is_not_kept():
    block, x = patched(Optional()), torch.randn(2, 36, 8)
    block(x, 4, 9)
    with pytest.raises(exda.InputError, match="cannot tell"):
        block(x)


def test_size_that_does_not_fit_the_tokens_raises():
    block = patched(SizedBlock())
    with pytest.raises(exda.InputError, match=r"^attn: .*37 tokens, for a map of 4 x 9 = 36 pixels.*class token"):
        block(torch.randn(2, 37, 8), 4, 9)


@pytest.mark.parametrize("options", [{"tokens": 0, "value": "none"}, {"tokens": 0, "value": "gelu", "init": "paper"}])
@torch.no_grad()
def test_no_size_is_needed_without_tokens_and_convolution(options):
    block = Tokens().eval()
    exda.patch(block, exda.ExDAConfig(**options))
    assert block(torch.randn(2, 36, 8)).shape == (2, 36, 8)


class TestExists:
    """A block has the hook exactly as long as it holds a replacement."""

    def test_from_patch_to_unpatch(self):
        model = two_blocks()
        with unchanged(model, random_numbers=False):
            exda.patch(model)
            assert [len(hooks_of(block)) for block in model.blocks] == [1, 1]
            exda.unpatch(model)

    def test_inside_patched(self):
        model = two_blocks()
        exda.patch(model, include="blocks.0")
        with unchanged(model, random_numbers=False), exda.patched(model):
            assert [len(hooks_of(block)) for block in model.blocks] == [1, 1]
        assert [len(hooks_of(block)) for block in model.blocks] == [1, 0]

    def test_without_disturbing_other_hooks(self):
        model, calls = two_blocks(), []
        block = model.blocks[0]
        block.register_forward_pre_hook(lambda *_: calls.append("before"))
        block.register_forward_pre_hook(lambda *_: calls.append("before, with keywords"), with_kwargs=True)
        with unchanged(model, random_numbers=False):
            exda.patch(model)
            later = block.register_forward_pre_hook(lambda *_: calls.append("later"))
            model(image())
            exda.unpatch(model)
            model(image())
            later.remove()
        assert calls == 2 * ["before", "before, with keywords", "later"]

    def test_not_after_plan(self):
        model = two_blocks()
        with unchanged(model):
            exda.plan(model)

    def test_not_after_an_interrupted_patch(self):
        class Refusing(dict):
            def __setitem__(self, key, module):
                if isinstance(module, exda.ExDAModule):
                    raise KeyboardInterrupt
                super().__setitem__(key, module)

        model = two_blocks()
        model.blocks[0].register_forward_pre_hook(lambda *_: None, with_kwargs=True)
        model.blocks[1]._modules = Refusing(model.blocks[1]._modules)
        with unchanged(model, random_numbers=False), pytest.raises(KeyboardInterrupt):
            exda.patch(model)

    def test_still_after_an_interrupted_unpatch(self):
        class Reluctant(dict):
            def __setitem__(self, key, module):
                if not isinstance(module, exda.ExDAModule):
                    raise KeyboardInterrupt
                super().__setitem__(key, module)

        model = two_blocks()
        exda.patch(model)
        block = model.blocks[1]
        block._modules = Reluctant(block._modules)
        with unchanged(model), pytest.raises(KeyboardInterrupt):
            exda.unpatch(model)
        block._modules = dict(block._modules)
        exda.unpatch(model)
        assert not any(map(hooks_of, model.modules()))

    def test_on_a_model_that_is_the_block_itself(self):
        block = SizedBlock()
        with unchanged(block, random_numbers=False):
            exda.patch(block)
            assert len(hooks_of(block)) == 1
            assert block(torch.randn(1, 12, 8), 3, 4).shape == (1, 12, 8)
            exda.unpatch(block)

    def test_not_for_families_on_maps(self):
        from .models import two_blocks as on_maps

        model = on_maps()
        exda.patch(model)
        assert not any(map(hooks_of, model.modules()))


class TestShared:
    """One attention in several places, one block in several places, several attentions in one block."""

    @torch.no_grad()
    def test_attention_in_two_blocks(self):
        attention = XCA()
        model = Net(SizedBlock(attention), MapBlock(attention), SizedBlock()).eval()
        with unchanged(model, random_numbers=False):
            patched(model)
            assert [len(hooks_of(block)) for block in model.blocks] == [1, 1, 1]
            assert model.blocks[0].attn is model.blocks[1].attn
            model(image(7, 5))
            exda.unpatch(model)

    @torch.no_grad()
    def test_block_in_two_places(self):
        block = SizedBlock()
        model = Net(block, MapBlock(), block).eval()
        with unchanged(model, random_numbers=False):
            patched(model)
            assert len(hooks_of(block)) == 1
            model(image(7, 5))
            exda.unpatch(model)

    @torch.no_grad()
    def test_two_attentions_in_one_block(self):
        class Twice(SizedBlock):
            def __init__(self):
                super().__init__()
                self.again = XCA()

            def forward(self, x, height, width):
                return self.again(super().forward(x, height, width))

        model = Net(Twice()).eval()
        with unchanged(model, random_numbers=False):
            patched(model)
            assert len(hooks_of(model.blocks[0])) == 2
            model(image(7, 5))
            exda.unpatch(model)


class TestCopies:
    """A copy has its own hooks, which pass sizes to its own attention."""

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    @torch.no_grad()
    def test_copy_is_independent(self, duplicate):
        model = patched(two_blocks())
        other = duplicate(model)
        x = image(7, 5)
        assert torch.equal(other(x), model(x))
        before = model(x)
        train_new_parameters(other)
        assert not torch.equal(other(x), before)
        exda.unpatch(other)
        assert not any(map(hooks_of, other.modules()))
        other(x)
        assert torch.equal(model(x), before)
        assert [len(hooks_of(block)) for block in model.blocks] == [1, 1]

    @torch.no_grad()
    def test_original_and_copy_take_different_sizes_in_turn(self):
        model = patched(two_blocks())
        other = copy.deepcopy(model)
        wide, tall = image(4, 9), image(9, 4)
        expected = model(wide), model(tall)
        assert torch.equal(model(wide), expected[0])
        assert torch.equal(other(tall), expected[1])
        assert torch.equal(model(wide), expected[0])

    @torch.no_grad()
    def test_state_dict_carries_over_to_another_patched_model(self):
        model, other = patched(two_blocks()), two_blocks().eval()
        exda.patch(other)
        other.load_state_dict(model.state_dict(), strict=True)
        x = image(7, 5)
        assert torch.equal(other(x), model(x))

    @torch.no_grad()
    def test_averaged_model(self):
        model = patched(two_blocks())
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
        )
        before = copy.deepcopy(model)
        average.update_parameters(model)
        train_new_parameters(model)
        average.update_parameters(model)
        x = image(7, 5)
        for mean, first, last in zip(average.parameters(), before.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mean, (first + last) / 2)
        assert not torch.equal(average(x), model(x))
        average.module.load_state_dict(model.state_dict())
        assert torch.equal(average(x), model(x))


def test_hook_tolerates_an_attention_removed_by_hand():
    block = patched(SizedBlock())
    block.attn = nn.Identity()
    assert block(torch.randn(1, 12, 8), 3, 4).shape == (1, 12, 8)
