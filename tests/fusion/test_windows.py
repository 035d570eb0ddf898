"""Blocks whose parts take only maps of whole windows, as X-Restormer's."""

import copy

import pytest
import torch
from einops import rearrange

import exda_primitives as exda

from .blocks import Block, FeedForward, Four, Net, Pixels, image


class Windowed(Pixels):
    """Computes each window of 8 x 8 by itself; fails unless the map is made of whole windows."""

    def forward(self, x):
        windows = rearrange(x, "b c (h i) (w j) -> (b h w) c i j", i=8, j=8)
        rows, columns = x.shape[2] // 8, x.shape[3] // 8
        return rearrange(super().forward(windows), "(b h w) c i j -> b c (h i) (w j)", h=rows, w=columns)


class Overlapping(Four):
    """A block of the kind of X-Restormer's."""

    def __init__(self):
        super().__init__()
        self.spatial_attn = Windowed()


class CutsByItself(Block):
    """The block itself, not its attention, cuts maps into windows."""

    def forward(self, x):
        rows, columns = x.shape[2] // 8, x.shape[3] // 8
        windows = rearrange(self.norm1(x), "b c (h i) (w j) -> (b h w) c i j", i=8, j=8)
        x = x + rearrange(self.attn(windows), "(b h w) c i j -> b c (h i) (w j)", h=rows, w=columns)
        return x + self.ffn(self.norm2(x))


class Sevens(FeedForward):
    """Takes only maps whose height is a multiple of 7."""

    def forward(self, x):
        return super().forward(rearrange(x, "b c (h i) w -> b c (h i) w", i=7))


@torch.no_grad()
def test_part_with_windows_is_any_function(ran_as_formulas):
    model = Net(Overlapping()).double()
    x, other = image(16, 24, dtype=torch.float64), copy.deepcopy(model)
    (block,) = exda.fuse(model).blocks
    assert [step.kind for step in block.steps] == [
        "attention",
        "gated feed-forward",
        "any function",
        "gated feed-forward",
    ]
    torch.testing.assert_close(model(x), other(x), rtol=0, atol=1e-12)
    assert ran_as_formulas == ["attention_step", "gated_step", "normalise", "gated_step"]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (CutsByItself, r"it does not compute x \+ attn\(norm1\(x\)\)"),
        (lambda: Block(ffn=Sevens), r"could not be probed on maps of 7 x 13 or of 16 x 32 pixels \(EinopsError"),
    ],
    ids=["cuts-by-itself", "sevens"],
)
def test_blocks_left_alone(block, reason):
    with pytest.raises(exda.NoMatchError, match=reason):
        exda.fuse(Net(block()))
