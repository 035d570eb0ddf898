"""Whatever a block could read is compared at each call: private settings, contents of lists, and classes."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import exda_primitives as exda

from .blocks import BOTH_STEPS, Block, FeedForward, Net, WithBias, image, patch_randomly

DUPLICATES = {"itself": lambda m: m, "deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}


class Options(Block):
    """A block that reads settings of many kinds, none of which changes anything when it is fused."""

    class_scale = 1.0
    class_scales = (1.0,)

    def __init__(self, norm=WithBias, ffn=FeedForward):
        super().__init__(norm=norm, ffn=ffn)
        self._scale, self._nothing = 1.0, None
        self._options = {"scale": 1.0, "more": [1.0, (1.0,)]}
        self.scales, self.names = [1.0, 1.0], {"unit"}

    @property
    def strength(self):
        return self._scale

    @strength.setter
    def strength(self, value):
        self._scale = value

    def scale(self):
        options = self._options["scale"] * self._options["more"][0] * self.scales[0] * len(self.names)
        added = getattr(self, "added", 1.0) * (1.0 if self._nothing is None else 2.0)
        return self._scale * options * added * self.class_scale * self.class_scales[0]

    def forward(self, x):
        x = x + self.scale() * self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class OptionsInFeedForward(FeedForward):
    slope = 1.0

    def __init__(self):
        super().__init__()
        self._scale, self.scales = 1.0, [1.0]

    def gate(self, first, second):
        return super().gate(first, second) * self._scale * self.scales[0] * self.slope


class OptionsInNorm(WithBias):
    def __init__(self):
        super().__init__()
        self._options = {"scale": 1.0}

    def on_rows(self, x):
        return super().on_rows(x) * self._options["scale"]


def options():
    return Options(OptionsInNorm, OptionsInFeedForward)


# Changes of an instance: of the block, then of its parts.
OF_THE_BLOCK = {
    "private": lambda block: setattr(block, "_scale", 0.5),
    "private None": lambda block: setattr(block, "_nothing", 1),
    "dictionary": lambda block: block._options.update(scale=0.5),
    "nested list": lambda block: block._options["more"].__setitem__(0, 0.5),
    "new dictionary": lambda block: setattr(block, "_options", {"scale": 0.5, "more": [1.0]}),
    "list": lambda block: block.scales.__setitem__(0, 0.5),
    "set": lambda block: block.names.add("other"),
    "tensor": lambda block: setattr(block, "_scale", torch.full((8, 1, 1), 0.5)),
    "tensor in a list": lambda block: block.scales.__setitem__(0, torch.full((8, 1, 1), 0.5)),
    "parameter": lambda block: setattr(block, "added", nn.Parameter(torch.full((8, 1, 1), 0.5))),
    "buffer": lambda block: block.register_buffer("added", torch.full((8, 1, 1), 0.5)),
    "added": lambda block: setattr(block, "added", 0.5),
    "property": lambda block: setattr(block, "strength", 0.5),
    "class attribute hidden": lambda block: setattr(block, "class_scale", 0.5),
    "method hidden": lambda block: setattr(block, "scale", lambda: 0.5),
}
OF_A_PART = {
    "private, of the feed-forward": lambda block: setattr(block.ffn, "_scale", 0.5),
    "list of the feed-forward": lambda block: block.ffn.scales.__setitem__(0, 0.5),
    "method hidden, of the feed-forward": lambda block: setattr(block.ffn, "gate", lambda a, b: a * b),
    "class attribute hidden, of the feed-forward": lambda block: setattr(block.ffn, "slope", 0.5),
    "dictionary of the norm": lambda block: block.norm1._options.update(scale=0.5),
    "class attribute hidden, of the norm": lambda block: setattr(block.norm2, "eps", 1.0),
    "method hidden, of a convolution": lambda block: wrap_around(block.ffn.dwconv),
    "padding of a convolution": lambda block: setattr(
        block.ffn.project_in, "_reversed_padding_repeated_twice", [1] * 4
    ),
}


def wrap_around(conv):
    """Makes a convolution pad circularly, as programs for seamless textures do."""
    conv._conv_forward = lambda x, weight, bias: F.conv2d(
        F.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias, groups=conv.groups
    )


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("name", OF_THE_BLOCK)
@pytest.mark.usefixtures("ran_as_formulas")
@torch.no_grad()
def test_setting_of_the_block_changed_after_fuse(name, duplicate):
    model = Net(options()).double()
    x, other = image(dtype=torch.float64), copy.deepcopy(model)
    exda.fuse(model)
    before = model(x)
    model = DUPLICATES[duplicate](model)
    change = OF_THE_BLOCK[name]
    change(model.blocks[0])
    change(other.blocks[0])
    model.double(), other.double()
    expected = other(x)
    assert not torch.allclose(expected, before)
    for _ in range(2):
        assert torch.equal(model(x), expected)
    reasons = {part.reason for part in exda.backend_report(model).parts}
    assert len(reasons) == 1
    assert "now" in reasons.pop()
    exda.unfuse(model)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("duplicate", ["itself", "pickle"])
@pytest.mark.parametrize("name", OF_A_PART)
@pytest.mark.usefixtures("ran_as_formulas")
@torch.no_grad()
def test_setting_of_a_part_changed_after_fuse(name, duplicate):
    model = Net(options()).double()
    x, other = image(dtype=torch.float64), copy.deepcopy(model)
    exda.fuse(model)
    before = model(x)
    model = DUPLICATES[duplicate](model)
    OF_A_PART[name](model.blocks[0])
    OF_A_PART[name](other.blocks[0])
    assert any("now" in (part.reason or "") for part in exda.backend_report(model).parts)
    if "padding" in name:
        # Read with another padding mode only.
        return
    expected = other(x)
    assert not torch.allclose(expected, before)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    exda.unfuse(model)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    "name", [name for name in OF_THE_BLOCK if name not in ("property", "set", "parameter", "buffer")]
)
@torch.no_grad()
def test_setting_changed_where_something_else_refers_to_the_block(name, ran_as_formulas):
    model = Net(options()).double()
    x, other, block = image(dtype=torch.float64), copy.deepcopy(model), model.blocks[0]
    exda.fuse(model)
    OF_THE_BLOCK[name](block)
    OF_THE_BLOCK[name](other.blocks[0])
    model.double(), other.double()
    assert torch.equal(model(x), other(x))
    assert ran_as_formulas == []
    exda.unfuse(model)
    assert torch.equal(model(x), other(x))


def test_setting_changed_back_leaves_the_block_on_kernels(ran_as_formulas):
    model = Net(options())
    exda.fuse(model)
    block, x = model.blocks[0], image()
    expected = model(x)
    for change, back in ((0.5, 1.0), (0.25, 1.0)):
        block._scale = change
        block.scales.append(change)
        block.added = change
        assert not torch.allclose(model(x), expected)
        block._scale = back
        block.scales.pop()
        del block.added
        ran_as_formulas.clear()
        # The block itself has to follow first.
        assert torch.allclose(model(x), expected)
        ran_as_formulas.clear()
        assert torch.allclose(model(x), expected)
        assert ran_as_formulas == BOTH_STEPS


def test_private_settings_can_be_read_from_the_fused_block():
    model = Net(options())
    exda.fuse(model)
    assert model.blocks[0]._options is model.blocks[0].host._options


@pytest.mark.usefixtures("ran_as_formulas")
def test_gradient_of_a_scale_that_became_a_tensor():
    # Equal to the number that was there before.
    model = Net(options())
    exda.fuse(model)
    scale = torch.ones((), requires_grad=True)
    model.blocks[0]._scale = scale
    model(image()).sum().backward()
    assert scale.grad is not None
    assert scale.grad != 0


def other_eps(monkeypatch):
    monkeypatch.setattr(WithBias, "eps", 1.0)


def forward_of(kind):
    def replace(monkeypatch):
        forward = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, x: 1.5 * forward(self, x))

    return replace


def added_forward(monkeypatch):
    # The class itself had none: it inherits one.
    monkeypatch.setattr(OptionsInNorm, "forward", lambda self, x: 1.5 * WithBias.forward(self, x), raising=False)


def new_code(monkeypatch):
    # As IPython's autoreload does.
    monkeypatch.setattr(FeedForward.gate, "__code__", (lambda self, first, second: first * second).__code__)


OF_CLASSES = {
    "forward of the block": forward_of(Options),
    "forward of a base of the feed-forward": forward_of(FeedForward),
    "forward of the attention": forward_of(type(Block().attn)),
    "forward of a base of the norm": forward_of(WithBias),
    "forward of convolutions": forward_of(nn.Conv2d),
    "added forward": added_forward,
    "method": lambda monkeypatch: monkeypatch.setattr(FeedForward, "gate", lambda self, first, second: first * second),
    "code of a method": new_code,
    "attribute": other_eps,
    "attribute of the block": lambda monkeypatch: monkeypatch.setattr(Options, "class_scale", 0.5),
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("name", OF_CLASSES)
@torch.no_grad()
def test_class_changed_after_fuse(name, duplicate, monkeypatch, ran_as_formulas):
    model = Net(options()).double()
    x, other = image(dtype=torch.float64), copy.deepcopy(model)
    exda.fuse(model)
    before = model(x)
    model = DUPLICATES[duplicate](model)
    assert torch.equal(model(x), before)
    assert ran_as_formulas == 2 * BOTH_STEPS
    with monkeypatch.context() as patches:
        OF_CLASSES[name](patches)
        expected = other(x)
        assert not torch.allclose(expected, before)
        # Copies that are made later see it, too.
        for each in (model, *(make(model) for make in DUPLICATES.values())):
            assert torch.equal(each(x), expected)
        assert ran_as_formulas == 2 * BOTH_STEPS
        assert "the class" in exda.backend_report(model).parts[0].reason
    assert torch.equal(model(x), before)
    assert ran_as_formulas == 3 * BOTH_STEPS


@torch.no_grad()
def test_forward_of_convolutions_replaced_under_a_patched_attention(monkeypatch, ran_as_formulas):
    model = patch_randomly(Net(Block()).double())
    x, other = image(dtype=torch.float64), copy.deepcopy(model)
    exda.fuse(model)
    forward_of(exda.ExDAAttention)(monkeypatch)
    assert torch.equal(model(x), other(x))
    assert ran_as_formulas == []


class Reader(Block):
    """Reads an object, which changes nothing when it is fused."""

    def __init__(self, held, norm=WithBias, ffn=FeedForward):
        super().__init__(norm=norm, ffn=ffn)
        self._held = held


class ReadingFeedForward(FeedForward):
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(scale=1.0)


class ReadingNorm(WithBias):
    def __init__(self):
        super().__init__()
        self._means = torch.zeros(8)


class ReadingClass(Block):
    config = SimpleNamespace(scale=1.0)


class NamedAsOurs(Block):
    def __init__(self):
        super().__init__()
        self._steps = 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Reader(SimpleNamespace(scale=1.0)), "_held is or holds a SimpleNamespace"),
        (lambda: Reader([1.0, {"a": SimpleNamespace()}]), "_held is or holds a SimpleNamespace"),
        (lambda: Reader(torch.ones(1)), "_held is or holds a Tensor"),
        (lambda: Reader(None, ffn=ReadingFeedForward), "ffn.config is or holds a SimpleNamespace"),
        (lambda: Reader(None, norm=ReadingNorm), "norm1._means is or holds a Tensor"),
        (ReadingClass, "ReadingClass.config is or holds a SimpleNamespace"),
        (NamedAsOurs, "it has an attribute _steps, a name that a fused block needs itself"),
    ],
)
def test_block_that_holds_what_cannot_be_compared_is_left_alone(make, reason):
    model = Net(Block(), make())
    report = exda.fuse(model)
    assert [block.name for block in report.blocks] == ["blocks.0"]
    (left,) = report.left_alone
    assert left.name == "blocks.1"
    assert reason in left.reason


@torch.no_grad()
def test_blocks_that_differ_in_a_private_setting_are_told_apart(ran_as_formulas):
    model = Net(options(), options())
    model.blocks[1]._scale = 0.5
    report = exda.fuse(model)
    assert [block.name for block in report.blocks] == ["blocks.0"]


@torch.no_grad()
def test_replica_follows_a_private_setting():
    model = Net(options())
    exda.fuse(model)
    block, x = model.blocks[0], torch.randn(1, 8, 5, 7)
    replica = block._replicate_for_data_parallel()
    with exda.backend("torch"):
        before = block(x)
        replica._scale = 0.5
        assert not torch.equal(replica(x), before)
        assert torch.equal(block(x), before)


@pytest.mark.usefixtures("fresh_dynamo")
class TestCompiled:
    """torch.compile sees what had changed when it compiles, and keeps one graph."""

    @pytest.mark.parametrize("name", ["nested list", "method hidden"])
    @torch.no_grad()
    def test_changed_before(self, name, ran_as_formulas):
        model = Net(options())
        x, other = image(), copy.deepcopy(model)
        exda.fuse(model)
        OF_THE_BLOCK[name](model.blocks[0])
        OF_THE_BLOCK[name](other.blocks[0])
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), other(x))
        assert ran_as_formulas == []

    @pytest.mark.parametrize("name", ["forward of the attention", "attribute"])
    @torch.no_grad()
    def test_class_changed_before(self, name, monkeypatch, ran_as_formulas):
        model = Net(options())
        x, other = image(), copy.deepcopy(model)
        exda.fuse(model)
        OF_CLASSES[name](monkeypatch)
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), other(x))
        assert ran_as_formulas == []

    @pytest.mark.usefixtures("as_formulas")
    @torch.no_grad()
    def test_changed_between_calls(self):
        # Nothing records what runs: the growing record would be a reason to compile anew.
        model = Net(options())
        x, other = image(), copy.deepcopy(model)
        exda.fuse(model)
        graphs = []

        def backend(graph, example):
            graphs.append(graph)
            return graph

        whole = torch.compile(model, backend=backend, fullgraph=True)
        for _ in range(3):
            torch.testing.assert_close(whole(x), other(x))
        assert len(graphs) == 1
        for change in ("private", "list", "dictionary"):
            OF_THE_BLOCK[change](model.blocks[0])
            OF_THE_BLOCK[change](other.blocks[0])
            for _ in range(2):
                torch.testing.assert_close(whole(x), other(x))
        for each in (model, other):
            each.blocks[0]._scale = 1.0
            each.blocks[0].scales[0] = each.blocks[0]._options["scale"] = 1.0
        for _ in range(2):
            torch.testing.assert_close(whole(x), other(x))
        assert len(graphs) <= 6
