"""Which blocks are recognised, and which only look like one."""

import pytest
import torch
from tests.patching.unchanged import unchanged

import exda_primitives as exda

from .blocks import FUSED, LEFT_ALONE, UNKNOWN, Block, Net


@pytest.mark.parametrize("name", FUSED)
def test_recognised_steps(name):
    make, steps = FUSED[name]
    model = Net(make())
    (block,) = exda.fuse(model).blocks
    assert block.name == "blocks.0"
    assert tuple((step.norm, step.function, step.kind) for step in block.steps) == steps


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_error_gives_the_reason_why_a_block_is_left_alone(name):
    make, reason = LEFT_ALONE[name]
    model = Net(make())
    with unchanged(model), pytest.raises(exda.NoMatchError, match=rf"left alone: blocks\.0 \(\w+\): .*{reason}"):
        exda.fuse(model)


@pytest.mark.parametrize("name", UNKNOWN)
def test_blocks_without_a_known_attention_are_not_mentioned(name):
    model = Net(UNKNOWN[name]())
    with unchanged(model), pytest.raises(exda.NoMatchError) as caught:
        exda.fuse(model)
    assert "left alone" not in str(caught.value)


@pytest.mark.parametrize("name", LEFT_ALONE)
@torch.no_grad()
def test_report_names_a_block_left_alone_next_to_a_fused_one(name):
    make, _ = LEFT_ALONE[name]
    model = Net(Block(), make())
    report = exda.fuse(model)
    assert [block.name for block in report.blocks] == ["blocks.0"]
    (left,) = report.left_alone
    assert left.name == "blocks.1"
