"""The same digits, restored by window attention (Swin's): the value path is linear there, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from ...errors import ConfigError
from ...ops.layout import to_map, to_tokens
from ...primitives import ExDAWindowAttention
from .data import Digits
from .digits import LAYOUT, DigitsExperiment, depth_of
from .variants import VARIANTS, Layout, LinearBranch, Variant, attention_network

WIDTH = 18
"""Channels of the attentions."""
SIDE, SHIFT = 7, 3
"""Pixels of a window's side (28 x 28 pixels are 4 x 4 windows), and of the shift of every second attention."""
_FAR = -100.0
"""What is added to the logit of two pixels that only the shift brings into one window, as in Swin."""


class WindowsExperiment(DigitsExperiment):
    """Restores digits by residual window attentions: what ``DigitsExperiment`` does across channels.

    The paper claims nothing about window attention; this is the library's extension. Data, degradation, training and
    metric are those of ``DigitsExperiment``, and so is the network, but for its 18 channels (with which a widened
    control of equal size exists) and its attentions: windows of 7 x 7 pixels, 1 head, relative positions and biases;
    every second one is shifted by 3 pixels, as in Swin and SwinIR, but without norms and feed-forwards.

    Args:
        digits: the clean images; their sides are multiples of 7.
        depths: numbers of attentions in a row; each number is a condition.
        **options: as for ``DigitsExperiment``. Variants with tokens do not exist: a window has no place for them.

    Raises:
        ConfigError: as ``DigitsExperiment``, and for images of other sides.
    """

    kind: ClassVar[str] = "windows"
    title: ClassVar[str] = "Restoration of degraded digits by window attention alone"

    def __init__(self, digits: Digits, depths: Sequence[int] = (2,), **options: Any) -> None:
        super().__init__(digits, depths, **options)
        sides = tuple(digits.images.shape[-2:])
        if any(side % SIDE for side in sides):
            raise ConfigError(f"{digits.source}: images of {sides}; windows need sides that are multiples of {SIDE}")

    def config(self) -> dict[str, Any]:
        """Returns data, degradation, training settings and the windows."""
        return {**super().config(), "window": SIDE, "shift": SHIFT}

    def has(self, condition: str, variant: str) -> bool:
        """Returns whether the variant exists."""
        return not VARIANTS[variant].tokens

    def network(self, condition: str, variant: str) -> nn.Module:
        """Builds the network of a variant, with as many attentions as the condition says."""
        layout = Layout(**{**vars(LAYOUT), "width": WIDTH, "heads": 1, "depth": depth_of(condition)})
        return attention_network(layout, variant, windows)


def windows(index: int, width: int, heads: int, variant: Variant, fewer_biases: bool) -> nn.Module:
    """Builds a network's window attention, see ``variants.Build``: every second one is shifted."""
    attention = ExDAWindowAttention(
        width,
        heads,
        window_size=SIDE,
        value=variant.value,
        value_position=variant.position,
        init="paper",
    )
    if variant.branch:
        attention.qkv = nn.Sequential(attention.part("qkv"), _BranchOfRows(width))
    if fewer_biases:
        attention.part("proj").bias = None
    return Windows(attention, SHIFT * (index % 2))


class Windows(nn.Module):
    """Applies a window attention to each window of a map, shifted as in Swin: cyclically, with a mask.

    Args:
        attention: attention within windows of ``SIDE`` x ``SIDE`` pixels.
        shift: pixels by which the windows are shifted.

    Shape:
        (B, C, H, W) -> (B, C, H, W), H and W multiples of ``SIDE``.
    """

    def __init__(self, attention: ExDAWindowAttention, shift: int) -> None:
        super().__init__()
        self.attention, self.shift = attention, shift

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        down = x.shape[2] // SIDE
        rows = rearrange(self._rolled(x, -1), "b c (y h) (x w) -> (b y x) (h w) c", h=SIDE, w=SIDE)
        rows = self.attention(rows, mask=self._mask(x) if self.shift else None)
        out = rearrange(rows, "(b y x) (h w) c -> b c (y h) (x w)", b=len(x), y=down, h=SIDE, w=SIDE)
        return self._rolled(out, 1)

    def _rolled(self, x: Tensor, direction: int) -> Tensor:
        return x.roll((direction * self.shift,) * 2, (2, 3)) if self.shift else x

    def _mask(self, x: Tensor) -> Tensor:
        """Returns (windows, N, N): ``_FAR`` for two pixels that are no neighbours in the map, else 0."""
        height, width = x.shape[2:]
        # Parts of the rolled map: all but the last row of windows, and what comes of the map's end and of its begin.
        down, right = (
            (torch.arange(side) >= side - SIDE).int() + (torch.arange(side) >= side - self.shift)
            for side in (height, width)
        )
        parts = 3 * down[:, None] + right[None, :]
        of_windows = rearrange(parts, "(y h) (x w) -> (y x) (h w)", h=SIDE, w=SIDE)
        return _FAR * (of_windows[:, :, None] != of_windows[:, None, :]).to(x.dtype)


class _BranchOfRows(nn.Module):
    """``LinearBranch`` on the pixels of windows, (B, N, 3C) -> (B, N, 3C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.branch = LinearBranch(dim)

    def forward(self, rows: Tensor) -> Tensor:
        return to_tokens(self.branch(to_map(rows, (SIDE, SIDE))))
