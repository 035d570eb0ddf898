"""Parts that are replaced, wrapped, hooked or parametrised after fuse compute as they would in the block itself."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import exda_primitives as exda

from .blocks import Block, FeedForward, Idle, Lists, Net, Permuted, WithBias, Within, image, patch_randomly

ATTENTION = ["attn.qkv", "attn.qkv_dwconv", "attn.project_out"]
FEED_FORWARD = ["ffn.project_in", "ffn.dwconv", "ffn.project_out"]
STEPS = ["norm1", "attn", "norm2", "ffn"]


class Shifted(nn.Module):
    """Adds a term to the output of the module it wraps."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + 0.1 * x.mean()


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


class OtherFormula(WithBias):
    """The parameters and names of a norm, but another formula."""

    def forward(self, x):
        return 1.5 * super().forward(x)


def set_part(block, name, module):
    path, _, key = name.rpartition(".")
    setattr(block.get_submodule(path), key, module)


def wrapped(block, name):
    set_part(block, name, Shifted(block.get_submodule(name)))


def sequence(block, name):
    set_part(block, name, nn.Sequential(block.get_submodule(name), nn.Tanh()))


def of_another_class(block, name):
    module = block.get_submodule(name)
    kind = type(module)
    module.__class__ = type("Other", (kind,), {"forward": lambda self, x: 1.5 * kind.forward(self, x)})


def another_forward(block, name):
    module = block.get_submodule(name)
    forward = module.forward
    module.forward = lambda x: 1.5 * forward(x)


def hooked(block, name):
    block.get_submodule(name).register_forward_hook(lambda _, given, out: 1.5 * out)


def hooked_before(block, name):
    block.get_submodule(name).register_forward_pre_hook(lambda _, given: (1.5 * given[0] + 0.1,))


def parametrised(block, name):
    module = block.get_submodule(name)
    parametrize.register_parametrization(
        module, next(key for key, _ in module.named_parameters(recurse=False)), Doubled()
    )


def pruned(block, name):
    prune.l1_unstructured(block.get_submodule(name), "weight", 0.5)


def identity(block, name):
    set_part(block, name, nn.Identity())


def other_weights(block, name):
    set_part(block, name, copy.deepcopy(block.get_submodule(name)))
    for parameter in block.get_submodule(name).parameters():
        parameter.detach().mul_(1.5)


def reflecting(block, name):
    block.get_submodule(name).padding_mode = "reflect"


def five_wide(block, name):
    old = block.get_submodule(name)
    channels = old.in_channels
    set_part(block, name, nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False).double())


def with_bias(block, name):
    conv = block.get_submodule(name)
    conv.bias = nn.Parameter(torch.randn(conv.out_channels, dtype=torch.float64))


def without_bias(block, name):
    block.get_submodule(name).bias = None


# Every change on the parts that it applies to.
EXCHANGES = [
    *[(change, name) for change in (wrapped, of_another_class, another_forward, hooked, identity) for name in STEPS],
    *[
        (change, name)
        for change in (sequence, of_another_class, another_forward, hooked_before, parametrised)
        for name in (*ATTENTION, *FEED_FORWARD)
    ],
    *[(change, name) for change in (pruned, other_weights) for name in (*ATTENTION, *FEED_FORWARD)],
    *[(parametrised, name) for name in ("norm1", "norm2", "attn")],
    *[(change, name) for change in (reflecting, five_wide) for name in ("attn.qkv_dwconv", "ffn.dwconv")],
    *[(with_bias, name) for name in (*ATTENTION, *FEED_FORWARD)],
    *[(other_weights, name) for name in STEPS],
]


@pytest.mark.parametrize(
    ("change", "name", "patched"),
    [
        *[(*case, False) for case in EXCHANGES],
        *[(*case, True) for case in EXCHANGES if case[1].startswith("attn")],
    ],
    ids=lambda case: getattr(case, "__name__", str(case)),
)
@pytest.mark.usefixtures("ran_as_formulas")
@torch.no_grad()
def test_part_changed_after_fuse(change, name, patched):
    model = Net(Block()).double()
    x = image(dtype=torch.float64)
    if patched:
        patch_randomly(model)
    before = model(x)
    other = copy.deepcopy(model)
    exda.fuse(model)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-12)
    torch.manual_seed(1)
    change(model.blocks[0], name)
    torch.manual_seed(1)
    change(other.blocks[0], name)
    expected = other(x)
    assert not torch.allclose(expected, before)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    exda.unfuse(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)


class TestNorms:
    """Changes inside a norm."""

    @pytest.mark.parametrize(
        ("make", "change"),
        [
            (lambda: Within(WithBias()), lambda norm: setattr(norm, "body", nn.Identity())),
            (lambda: Within(WithBias()), lambda norm: hooked(norm, "body")),
            (lambda: Within(WithBias()), lambda norm: setattr(norm, "body", OtherFormula())),
            (Permuted, lambda norm: setattr(norm, "eps", 1.0)),
            (Permuted, lambda norm: setattr(norm, "bias", None)),
            (WithBias, lambda norm: setattr(norm, "__class__", OtherFormula)),
        ],
        ids=["identity inside", "hook inside", "other class inside", "eps", "no bias", "other class"],
    )
    @torch.no_grad()
    def test_norm_changed_inside_is_called(self, make, change, ran_as_formulas):
        model = Net(Block(norm=make)).double()
        x = image(dtype=torch.float64)
        exda.fuse(model)
        torch.manual_seed(1)
        change(model.blocks[0].norm1)
        model.double()
        found = model(x)
        with exda.backend("torch"):
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)
        assert ran_as_formulas == ["gated_step"]


class WithOptions(Block):
    """Reads an attribute and calls a child, both of which change nothing at the time of fuse."""

    def __init__(self):
        super().__init__()
        self.factor, self.drop_path = 1.0, nn.Identity()

    def forward(self, x):
        x = x + self.factor * self.drop_path(self.attn(self.norm1(x)))
        return x + self.ffn(self.norm2(x))


class TestOfTheBlock:
    """Changes of a block outside its steps: then the whole block computes by its own forward."""

    @pytest.mark.parametrize("duplicate", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    @pytest.mark.parametrize(
        "change",
        [
            lambda block: setattr(block, "factor", 0.5),
            lambda block: setattr(block, "drop_path", Doubled()),
            lambda block: block.drop_path.register_forward_hook(lambda *arguments: 2 * arguments[-1]),
        ],
        ids=["attribute", "child", "hook"],
    )
    @torch.no_grad()
    def test_changed_block_computes_by_itself(self, change, duplicate, ran_as_formulas):
        model = Net(WithOptions()).double().eval()
        x, other = image(dtype=torch.float64), copy.deepcopy(model)
        exda.fuse(model)
        assert torch.allclose(model(x), other(x), rtol=0, atol=1e-12)
        assert len(ran_as_formulas) == 2
        model = duplicate(model)
        change(model.blocks[0])
        change(other.blocks[0])
        model.blocks[0].attn, other.blocks[0].attn = 2 * [copy.deepcopy(other.blocks[0].attn)]
        assert torch.equal(model(x), other(x))
        assert len(ran_as_formulas) == 2
        assert {part.backend for part in exda.backend_report(model).parts} == {"modules"}
        exda.unfuse(model)
        assert torch.equal(model(x), other(x))

    def test_mode_reaches_new_children(self):
        model = Net(WithOptions()).eval()
        exda.fuse(model)
        model.blocks[0].drop_path = nn.Dropout().eval()
        x = image()
        assert torch.equal(model(x), model(x))
        model.train()
        assert not torch.equal(model(x), model(x))

    @torch.no_grad()
    def test_replaced_elements_of_lists_and_dictionaries(self, ran_as_formulas):
        model = Net(Lists()).double()
        x, other = image(dtype=torch.float64), copy.deepcopy(model)
        exda.fuse(model)
        for each in (model, other):
            torch.manual_seed(1)
            each.blocks[0].norms[0] = Doubled()
            each.blocks[0].mixers["ffn"] = FeedForward().double()
        torch.testing.assert_close(model(x), other(x), rtol=0, atol=1e-12)
        assert ran_as_formulas == ["gated_step"]

    @torch.no_grad()
    def test_replica_with_a_changed_child(self):
        # DataParallel makes replicas so, and then replaces their children by the children's replicas.
        model = Net(WithOptions())
        exda.fuse(model)
        block = model.blocks[0]
        replica = block._replicate_for_data_parallel()
        replica.drop_path = Doubled()
        x = torch.randn(1, 8, 5, 7)
        with exda.backend("torch"):
            before = block(x)
            assert not torch.equal(replica(x), before)
            assert torch.equal(block(x), before)


@torch.no_grad()
def test_unchanged_copies_and_patched_parts_stay_on_kernels(ran_as_formulas):
    model = Net(Idle())
    exda.fuse(model)
    block = model.blocks[0]
    block.norm1, block.ffn = copy.deepcopy(block.norm1), copy.deepcopy(block.ffn)
    model = pickle.loads(pickle.dumps(copy.deepcopy(model).double()))
    exda.patch(model)
    model(image(dtype=torch.float64))
    exda.unpatch(model)
    model(image(dtype=torch.float64))
    assert ran_as_formulas == 2 * ["attention_step", "gated_step"]
