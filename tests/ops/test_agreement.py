"""The concat-free path against the literal formula: output and every gradient."""

from typing import NamedTuple

import pytest
import torch


class Case(NamedTuple):
    height: int
    width: int
    batch: int
    heads: int
    channels: int  # per head
    tokens: int  # per head
    stride: int
    scale: str
    reinject: str
    value: str
    position: str
    bias: bool

    def __str__(self):
        size = f"H{self.height}-W{self.width}-B{self.batch}-h{self.heads}-K{self.tokens}-s{self.stride}"
        return f"{size}-{self.scale}-{self.reinject}-{self.value}-{self.position}{'-bias' * self.bias}"

    @property
    def options(self):
        return {
            "tokens": self.tokens,
            "stride": self.stride,
            "scale": self.scale,
            "reinject": self.reinject,
            "value": self.value,
            "value_position": self.position,
        }


# Every pair of values of any two fields occurs, and every triple of reinject, value and position. Channelwise requires
# as many tokens as a head has channels, so it never comes with 0 tokens.
CASES = [
    Case(17, 33, 3, 2, 1, 1, 2, "mean", "channelwise", "sigmoid", "before", False),
    Case(9, 1, 3, 1, 5, 0, 1, "sum", "mean", "replace", "after", True),
    Case(8, 8, 1, 4, 5, 5, 4, "sum", "channelwise", "none", "before", True),
    Case(1, 1, 1, 1, 5, 4, 2, "mean", "mean", "residual", "after", False),
    Case(7, 5, 3, 4, 2, 2, 1, "mean", "mean", "gelu", "before", True),
    Case(1, 9, 1, 2, 5, 5, 1, "sum", "channelwise", "sigmoid", "after", True),
    Case(1, 9, 3, 1, 4, 4, 4, "sum", "channelwise", "gelu", "before", False),
    Case(17, 33, 1, 4, 2, 2, 4, "mean", "mean", "none", "after", False),
    Case(7, 5, 1, 1, 5, 5, 2, "sum", "channelwise", "replace", "before", False),
    Case(1, 9, 1, 4, 2, 0, 2, "mean", "mean", "residual", "before", True),
    Case(1, 1, 3, 4, 2, 1, 4, "sum", "mean", "replace", "after", True),
    Case(9, 1, 3, 2, 2, 2, 4, "sum", "channelwise", "residual", "before", False),
    Case(8, 8, 1, 2, 3, 0, 1, "mean", "mean", "gelu", "after", True),
    Case(8, 8, 3, 1, 5, 1, 1, "mean", "mean", "none", "before", False),
    Case(9, 1, 1, 4, 1, 1, 2, "mean", "channelwise", "gelu", "after", False),
    Case(7, 5, 3, 4, 2, 0, 4, "sum", "mean", "sigmoid", "after", False),
    Case(17, 33, 3, 4, 2, 4, 1, "sum", "mean", "replace", "before", True),
    Case(1, 1, 1, 2, 5, 5, 1, "mean", "channelwise", "replace", "after", False),
    Case(7, 5, 3, 2, 3, 5, 1, "mean", "mean", "residual", "before", True),
    Case(9, 1, 3, 2, 4, 4, 1, "sum", "channelwise", "none", "after", True),
    Case(8, 8, 1, 2, 3, 2, 2, "sum", "mean", "sigmoid", "before", True),
    Case(1, 1, 1, 1, 5, 2, 4, "mean", "mean", "sigmoid", "before", True),
    Case(1, 1, 3, 1, 5, 0, 2, "sum", "mean", "none", "after", False),
    Case(17, 33, 1, 1, 5, 5, 1, "sum", "mean", "gelu", "before", True),
    Case(1, 9, 1, 1, 2, 2, 4, "sum", "channelwise", "replace", "after", False),
    Case(8, 8, 3, 1, 2, 2, 4, "sum", "channelwise", "residual", "after", False),
    Case(8, 8, 3, 2, 3, 4, 4, "sum", "mean", "replace", "after", False),
    Case(9, 1, 3, 2, 3, 5, 1, "mean", "mean", "sigmoid", "after", False),
    Case(17, 33, 1, 4, 2, 0, 2, "mean", "mean", "residual", "before", False),
    Case(7, 5, 1, 1, 5, 1, 1, "sum", "mean", "none", "after", False),
    Case(1, 9, 3, 2, 1, 1, 1, "mean", "channelwise", "none", "after", False),
    Case(7, 5, 3, 1, 5, 4, 1, "sum", "mean", "sigmoid", "after", False),
    Case(1, 1, 1, 4, 2, 2, 4, "mean", "channelwise", "gelu", "before", False),
    # The default options; then 4 heads with 5 tokens each: more token rows than a tile of 16 holds.
    Case(17, 33, 1, 2, 6, 1, 2, "sum", "mean", "residual", "before", False),
    Case(17, 33, 1, 4, 3, 5, 2, "mean", "mean", "residual", "before", True),
]
HALF_TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture
def prepare(make_attention, make_maps):
    def prepare(family, case, dtype):
        dim = case.heads * case.channels
        module = make_attention(family, dim, case.heads, case.bias, dtype=dtype, **case.options)
        return module, make_maps(family, case.batch, dim, case.height, case.width, dtype=dtype)

    return prepare


def test_outputs_and_gradients_agree_in_float64(family, case, prepare, differentiate, relative_errors):
    module, maps = prepare(family, case, torch.float64)
    errors = relative_errors(differentiate(module, maps, "torch"), differentiate(module, maps, "reference"))
    assert max(errors.values()) < 1e-12, errors


def test_outputs_and_gradients_agree_in_float32(family, case, prepare, differentiate, relative_errors):
    module, maps = prepare(family, case, torch.float32)
    errors = relative_errors(differentiate(module, maps, "torch"), differentiate(module, maps, "reference"))
    # Measured: 5e-6. Over a single pixel a unit vector is +1 or -1: its gradient is rounding error, which is divided
    # by the vector's length. Measured: 3e-5.
    bound = 2e-5 if case.height * case.width > 1 else 2e-4
    assert max(errors.values()) < bound, errors


@HALF_TYPES
def test_half_precision_agrees_with_the_formula_in_float32(
    channel_family, case, dtype, prepare, differentiate, relative_errors
):
    module, maps = prepare(channel_family, case, dtype)
    found = differentiate(module, maps, "torch")
    # The same rounded weights and maps, computed in float32.
    expected = differentiate(module.float(), tuple(x.float() for x in maps), "reference")
    errors = relative_errors(found, expected)
    eps = torch.finfo(dtype).eps
    # Measured over four seeds: 1.6 eps for outputs, 12 eps for gradients (that of a single alpha, a sum of numbers of
    # both signs). The literal formula in half precision errs as much.
    assert errors.pop("output") < 4 * eps
    assert max(errors.values()) < 24 * eps, errors


@HALF_TYPES
def test_histogram_agrees_with_the_formula_in_the_same_half_precision(
    case, dtype, prepare, differentiate, relative_errors
):
    module, maps = prepare("histogram", case, dtype)
    # Compared with the literal formula in the same dtype: rounding changes the order of the sorts, and to the 3x3
    # convolution after it a reordered x is another image. test_histogram_half_precision.py compares with float32, on
    # values that are not rounded before they are sorted.
    errors = relative_errors(differentiate(module, maps, "torch"), differentiate(module, maps, "reference"))
    # Measured: 0.9 eps; both compute in float32 after the sorts.
    assert max(errors.values()) < 3 * torch.finfo(dtype).eps, errors
