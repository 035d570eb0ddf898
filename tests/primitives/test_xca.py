"""Cross-covariance attention: a drop-in for timm's, and how it learns the size (H, W) of the map."""

import copy
import pickle

import pytest
import torch
from timm.models.edgenext import CrossCovarianceAttn
from timm.models.xcit import XCA

import exda_primitives as exda

# id: (shape, dtype, parts of the message)
INPUTS = {
    "2-D": ((35, 6), torch.float32, ["2 dimensions", "(35, 6)", "(B, N, 6)", "[None]"]),
    "map": ((2, 6, 5, 7), torch.float32, ["4 dimensions", "(2, 6, 5, 7)", "(B, N, 6)", "x.flatten(2).mT"]),
    "no sequence": ((0, 35, 6), torch.float32, ["at least one element", "(0, 35, 6)"]),
    "no token": ((2, 0, 6), torch.float32, ["at least one element", "(2, 0, 6)"]),
    "channels": ((2, 35, 5), torch.float32, ["(B, N, 6)", "(2, 35, 5)", "axis 2 has to be 6"]),
    "channels first": ((2, 6, 35), torch.float32, ["(B, N, 6)", "(2, 6, 35)", "axis 2 has to be 6"]),
    "uint8": ((2, 35, 6), torch.uint8, ["torch.uint8", "floating-point", ".float() / 255"]),
}
# Options that look at a pixel's neighbours, and therefore need the map's size.
NEEDS_SIZE = {
    "default": {},
    "tokens": {"value": "none"},
    "value": {"tokens": 0},
    "value after": {"tokens": 0, "value_position": "after"},
    "replace": {"tokens": 0, "value": "replace"},
}
# Options that take each pixel by itself.
NEEDS_NO_SIZE = {
    "nothing": {"tokens": 0, "value": "none"},
    "gelu": {"tokens": 0, "value": "gelu"},
    "sigmoid after": {"tokens": 0, "value": "sigmoid", "value_position": "after"},
}
needs_size = pytest.mark.parametrize("options", NEEDS_SIZE.values(), ids=NEEDS_SIZE)


def attention(**options):
    torch.manual_seed(0)
    return exda.ExDAXCAttention(6, 2, True, **options)


def tokens(count=35):
    return torch.randn(2, count, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("host", [XCA, CrossCovarianceAttn])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("backend", ["reference", "torch"])
@torch.no_grad()
def test_attention_computes_what_timms_does(host, bias, backend):
    theirs = host(12, 3, bias).double()
    theirs.temperature.uniform_(0.5, 4)
    ours = exda.ExDAXCAttention(12, 3, bias, init="identity").double()
    with pytest.warns(UserWarning, match="ExDA"):
        ours.load_state_dict(theirs.state_dict(), strict=True)
    for height, width in ((7, 5), (1, 11), (13, 1), (1, 1)):
        x = torch.randn(2, height * width, 12, dtype=torch.float64)
        with exda.backend(backend):
            found = ours(x, (height, width))
        torch.testing.assert_close(found, theirs(x), rtol=0, atol=1e-13)
        assert found.is_contiguous()


@pytest.mark.parametrize(("shape", "dtype", "parts"), INPUTS.values(), ids=INPUTS)
def test_input_is_checked(shape, dtype, parts):
    with pytest.raises(exda.InputError) as error:
        attention()(torch.zeros(shape, dtype=dtype), (5, 7))
    assert [part for part in ("ExDAXCAttention(dim=6, num_heads=2)", *parts) if part not in str(error.value)] == []


@needs_size
@pytest.mark.parametrize("count", [35, 36, 1])
def test_missing_size_is_an_error(options, count):
    with pytest.raises(exda.InputError, match=rf"\(2, {count}, 6\).*cannot tell the size.*grid = \(H, W\)"):
        attention(**options)(tokens(count))


@pytest.mark.parametrize("options", NEEDS_NO_SIZE.values(), ids=NEEDS_NO_SIZE)
@torch.no_grad()
def test_options_that_take_each_pixel_by_itself_need_no_size(options):
    module, x = attention(**options), tokens()
    assert torch.equal(module(x), module(x, (5, 7)))


@needs_size
@torch.no_grad()
def test_size_changes_the_output(options):
    module, x = attention(**options), tokens()
    assert (module(x, (5, 7)) - module(x, (7, 5))).abs().max() > 1e-5


@needs_size
@pytest.mark.parametrize("grid", [(5, 6), (6, 6), (1, 34)])
@pytest.mark.parametrize("way", ["argument", "attribute", "parent"])
def test_size_with_another_number_of_pixels_is_an_error(options, grid, way):
    module = attention(**options)
    module.grid = grid if way == "attribute" else None
    module.push_grid(grid if way == "parent" else None)
    height, width = grid
    with pytest.raises(exda.InputError, match=rf"35 tokens, for a map of {height} x {width} = .*no class token"):
        module(tokens(), grid if way == "argument" else None)


@torch.no_grad()
def test_argument_overrides_parent_overrides_attribute():
    module, x = attention(), tokens(12)
    sizes = [(3, 4), (2, 6), (12, 1)]
    by_call, by_parent, by_hand = (module(x, size) for size in sizes)
    module.grid = sizes[2]
    assert torch.equal(module(x), by_hand)
    module.push_grid(sizes[1])
    assert torch.equal(module(x), by_parent)
    assert torch.equal(module(x, sizes[0]), by_call)
    module.push_grid(None)
    assert torch.equal(module(x), by_hand)


def test_size_is_not_in_the_state_dict():
    module = attention()
    keys = set(module.state_dict())
    module.grid = (5, 7)
    module.push_grid((5, 7))
    assert set(module.state_dict()) == keys


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copy_keeps_the_attribute_but_not_the_parents_size(duplicate):
    module = attention()
    module.push_grid((5, 7))
    with pytest.raises(exda.InputError, match="cannot tell"):
        duplicate(module)(tokens())
    module.grid = (7, 5)
    other = duplicate(module)
    other.push_grid((35, 1))
    assert torch.equal(duplicate(module)(tokens()), module(tokens(), (7, 5)))
    assert torch.equal(module(tokens()), module(tokens(), (5, 7)))
