"""Shows where the global spatial tokens look."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ...patching.select import Patterns
from .attentions import attentions
from .collect import collect
from .parts import compact_maps


def token_maps(
    model: nn.Module,
    images: Iterable[Tensor],
    blocks: Patterns = None,
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, list[Tensor]]:
    """Returns the compact map of every token for each image.

    Args:
        model: has ExDA attentions with tokens; unchanged afterwards.
        images: (C, H, W) floating point in [0, 1]; shown one by one. An image of a size that the model does not accept
            is padded by reflection; its map covers the padded image.
        blocks: pattern or patterns of names, as ``include`` of ``exda_primitives.patch``; all by default.
        on_image: called with the number of images done.

    Returns:
        Name of the attention -> for each image (h, K, H', W') float32 on the CPU, non-negative, each map of sum 1.

    Raises:
        NotPatchedError: for a model without tokens.
        ImageError: if there are no images, or one is not a float (C, H, W) with pixels.
    """
    chosen = attentions(model, blocks, with_tokens=True)
    return collect(model, images, chosen, compact_maps, on_image)


def area(maps: Tensor) -> Tensor:
    """Returns the share of the image that a map looks at: ``exp(entropy) / (H W)``.

    A map that is flat on this share of the pixels, and 0 elsewhere, has the same entropy.

    Args:
        maps: (..., H, W), non-negative, each of sum 1.

    Returns:
        (...), from 1 / (H W) for a map that looks at a single pixel to 1 for a flat map.

    Examples:
        >>> import torch
        >>> half = torch.zeros(4, 4)
        >>> half[:2] = 1 / 8
        >>> round(float(area(half)), 3)
        0.5
    """
    flat = maps.flatten(-2)
    return torch.special.entr(flat).sum(-1).exp() / flat.shape[-1]
