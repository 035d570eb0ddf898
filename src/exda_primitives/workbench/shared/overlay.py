"""Draws a token map over its photograph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def over_grey(token_map: Tensor, photograph: Tensor) -> Tensor:
    """Draws where a token looks, from black over red and yellow to white, on the photograph in grey.

    Args:
        token_map: (h, w), non-negative, any scale.
        photograph: (1, 3, H, W) in [0, 1].

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    grey = photograph.mean(1, keepdim=True)
    heat = F.interpolate(token_map[None, None], grey.shape[-2:], mode="bilinear", align_corners=False)
    # Scaled to the 99.9 % quantile: a few very bright pixels would leave the rest dark.
    heat = ((heat - heat.min()) / (torch.quantile(heat, 0.999) - heat.min()).clamp_min(1e-12)).clamp(0, 1)
    # Red rises over the first third of the range, green over the second, blue over the last.
    colour = torch.cat([(3 * heat - offset).clamp(0, 1) for offset in range(3)], dim=1)
    return 0.35 * grey + 0.65 * colour
