"""What is a block, and what only looks like one."""

import pytest
import torch
from tests.patching.unchanged import unchanged

import exda_primitives as exda

from .blocks import FUSED, LEFT_ALONE, UNKNOWN, Block, Net


@pytest.mark.parametrize("name", FUSED)
def test_steps(name):
    make, steps = FUSED[name]
    model = Net(make())
    (block,) = exda.fuse(model).blocks
    assert block.name == "blocks.0"
    assert tuple((step.norm, step.function, step.kind) for step in block.steps) == steps


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_left_alone(name):
    make, reason = LEFT_ALONE[name]
    model = Net(make())
    with unchanged(model), pytest.raises(exda.NoMatchError, match=rf"left alone: blocks\.0 \(\w+\): .*{reason}"):
        exda.fuse(model)


@pytest.mark.parametrize("name", UNKNOWN)
def test_nothing_around_an_unknown_attention(name):
    model = Net(UNKNOWN[name]())
    with unchanged(model), pytest.raises(exda.NoMatchError) as caught:
        exda.fuse(model)
    assert "left alone" not in str(caught.value)


@pytest.mark.parametrize("name", LEFT_ALONE)
@torch.no_grad()
def test_one_that_is_left_alone_beside_one_that_is_fused(name):
    make, _ = LEFT_ALONE[name]
    model = Net(Block(), make())
    report = exda.fuse(model)
    assert [block.name for block in report.blocks] == ["blocks.0"]
    (left,) = report.left_alone
    assert left.name == "blocks.1"
