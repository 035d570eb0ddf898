"""Fused blocks on kernels: in float64 the block's own formula with all gradients, in half precision no less exact."""

import copy
import math
from functools import partial

import pytest
import torch
from tests.ops.triton.agreement import poison
from tests.ops.triton.programs import shrink_depthwise
from torch import nn

import exda_primitives as exda
from exda_primitives.models.histoformer import TransformerBlock

from .blocks import BiasFree, Block, FeedForward, Histogram, NoParameters, WithBias, feature, small, trained

BOTH_STEPS = ["attention_step", "gated_step"]


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch):
    shrink_depthwise(monkeypatch)


def block(norm, bias, patched, dtype):
    model = nn.Sequential(small(norm, bias))
    return (trained(model) if patched else model).to(dtype)


@pytest.mark.parametrize(
    ("norm", "bias", "patched", "shape"),
    [
        (WithBias, False, False, (2, 1, 5)),
        (WithBias, True, True, (1, 5, 7)),
        (BiasFree, False, True, (1, 7, 1)),
        (lambda _: NoParameters(), True, False, (1, 1, 1)),
    ],
)
def test_float64(norm, bias, patched, shape, ran, differentiate, relative_errors, monkeypatch):
    batch, *size = shape
    model, x = block(norm, bias, patched, torch.float64), feature(*size, batch, torch.float64)
    expected = differentiate(model, (x,), "reference")
    exda.fuse(model)
    poison(monkeypatch)
    found = differentiate(model, (x,), "auto")
    assert ran == BOTH_STEPS
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-12, errors


def test_float32(ran, differentiate, relative_errors):
    model, x = block(WithBias, False, True, torch.float32), feature(batch=1)
    expected = differentiate(copy.deepcopy(model).double(), (x.double(),), "reference")
    exda.fuse(model)
    errors = relative_errors(differentiate(model, (x,), "auto"), expected)
    assert ran == BOTH_STEPS
    # As for the attention alone.
    assert max(errors.values()) < 2e-5, errors


def root_mean_square(found, expected):
    return ((found - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()


@pytest.mark.parametrize(
    ("dtype", "patched"), [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float16, False)], ids=str
)
def test_half_precision_is_no_less_exact(dtype, patched, ran, differentiate, relative_errors):
    # Distances from float64, with the same parameters: of the fused block, and of the block's own modules.
    model, x = block(WithBias, True, patched, dtype), feature(4, 64, 1, dtype)
    expected = differentiate(copy.deepcopy(model).double(), (x.double(),), "reference")
    by_modules = differentiate(model, (x,), "torch")
    exda.fuse(model)
    fused = differentiate(model, (x,), "auto")
    assert ran == BOTH_STEPS
    # Of 24 blocks, both norms and both dtypes, that of the output was 0.76 to 0.91 of the modules', that of the input's
    # gradient 0.39 to 0.94, and that of all parameters' gradients, each a single sum, 0.43 to 0.99.
    for name, bound in {"output": 1.0, "input 0": 1.1}.items():
        ours, theirs = (root_mean_square(each[name].double(), expected[name]) for each in (fused, by_modules))
        assert ours < bound * theirs, name
    ours, theirs = (math.hypot(*relative_errors(each, expected).values()) for each in (fused, by_modules))
    assert ours < 1.1 * theirs


@pytest.mark.parametrize(("dtype", "patched"), [(torch.float32, True), (torch.bfloat16, False)], ids=str)
@torch.no_grad()
def test_autocast(dtype, patched, ran):
    model, x = block(WithBias, True, patched, torch.float32), feature(batch=1, dtype=dtype)
    with exda.backend("reference"):
        expected = copy.deepcopy(model).double()(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        with exda.backend("torch"):
            by_modules = model(x)
        exda.fuse(model)
        found = model(x)
    assert ran == BOTH_STEPS
    assert found.dtype is by_modules.dtype
    ours, theirs = (root_mean_square(each.double(), expected) for each in (found, by_modules))
    assert ours < 1.5 * theirs


HISTOFORMER = {
    "with-bias": partial(TransformerBlock, 4, 2, 2, True, "WithBias"),
    "bias-free": partial(TransformerBlock, 4, 2, 2, False, "BiasFree"),
    # As published: its attention writes into the map that it is given.
    "in-place": partial(Block, NoParameters, Histogram, partial(FeedForward, 8, 3)),
}


@pytest.mark.parametrize(
    ("name", "patched"), [("with-bias", False), ("with-bias", True), ("bias-free", False), ("in-place", True)]
)
def test_histoformer(name, patched, ran, differentiate, relative_errors, monkeypatch):
    # In float64, where no two values that are sorted come close enough for the norm's rounding to swap them.
    model = nn.Sequential(HISTOFORMER[name]()).double()
    if patched:
        trained(model)
    x = feature(dtype=torch.float64, dim=8 if name == "in-place" else 4)
    expected = differentiate(model, (x,), "reference")
    exda.fuse(model)
    poison(monkeypatch)
    found = differentiate(model, (x,), "auto")
    assert ran == ["normalise", "gated_step" if name == "in-place" else "normalise"]
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-12, errors


@torch.no_grad()
def test_maps_that_are_slices_of_larger_ones(ran):
    model = block(WithBias, False, False, torch.float64)
    x = feature(9, 8, 2, torch.float64, dim=7)[::2, 2:6, 3:8, 1:]
    expected = model(x)
    exda.fuse(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    assert ran == BOTH_STEPS


@torch.no_grad()
def test_channels_last(ran):
    model = block(WithBias, False, False, torch.float64)
    x = feature(batch=1, dtype=torch.float64).to(memory_format=torch.channels_last)
    expected = model(x)
    exda.fuse(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    assert ran == BOTH_STEPS


def test_frozen_parameters_and_inputs(ran):
    model = block(WithBias, True, True, torch.float64).requires_grad_(False)
    wanted = exda.new_parameters(model)
    for parameter in wanted:
        parameter.requires_grad_()
    x = feature(3, 4, 1, torch.float64)
    with exda.backend("reference"):
        expected = torch.autograd.grad(model(x).square().sum(), wanted)
    exda.fuse(model)
    found = torch.autograd.grad(model(x).square().sum(), wanted)
    assert ran == BOTH_STEPS
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_histoformer_in_half_precision(ran):
    # Rounding decides what is sorted where, and one choice is as good as the other: of 4 blocks of 36 channels, the
    # distance from float64 was 0.86 to 0.91 of the modules', and as far as those were from each other.
    model = nn.Sequential(TransformerBlock(8, 2, 2, False, "WithBias")).bfloat16()
    x = feature(24, 24, 1, torch.bfloat16, dim=8)
    expected = copy.deepcopy(model).double()(x.double())
    by_modules = model(x)
    exda.fuse(model)
    found = model(x)
    assert ran == ["normalise", "normalise"]
    ours, theirs = (root_mean_square(each.double(), expected) for each in (found, by_modules))
    assert ours < 1.1 * theirs
