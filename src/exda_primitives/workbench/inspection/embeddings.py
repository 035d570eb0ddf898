"""Embeddings: a few numbers for each image and attention, pooled over the whole image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import ExDAError
from ...patching.select import Patterns
from .attentions import attentions
from .collect import Call, Reader, collect
from .parts import compact_maps

Of = Literal["outputs", "tokens"]
"""What to embed: the attentions' outputs, or their tokens' maps."""

QUANTILES = 16
"""Number of quantiles of a token's map, at evenly spaced levels from its smallest value (0) to its largest (1)."""


def embeddings(
    model: nn.Module,
    images: Iterable[Tensor],
    blocks: Patterns = None,
    of: Of = "outputs",
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """Embeds each image by what each attention makes of it, pooled over space.

    ``"outputs"``: mean and standard deviation of every channel of the attention's output. The mean alone would miss
    noise, rain and blur, which hardly change a channel's mean but change how much it varies. Neither depends on the
    image's size, nor on where in it something is.

    ``"tokens"``: 16 quantiles of each global spatial token's map, times its number of pixels (all 1 for a flat map).
    They describe how a token looks, not where: where it looks depends on the content of the image. Maps pooled to 8 x 8
    pixels instead found the same image rather than the same degradation (all blocks of the demo's network, five
    degradations of 24 images: an NMI of 0.06 instead of 0.37).

    Args:
        model: patched or not, of any known family; its mode, hooks and weights are unchanged afterwards.
        images: (C, H, W) floating point in [0, 1], of any size; shown one by one.
        blocks: pattern or patterns of names, as ``include`` of ``exda_primitives.patch``; all by default.
        of: what to pool; only ExDA attentions have tokens.
        on_image: called with the number of images done.

    Returns:
        Name of the attention -> (images, features) float32 on the CPU: 2C features of outputs, 16 h K of tokens.

    Raises:
        NoMatchError: for a model without a known attention.
        NotPatchedError: for the tokens of a model that has none.
        ImageError: if there are no images, or one is not a float (C, H, W) with pixels.
        ExDAError: for features that are not finite.

    Examples:
        >>> import torch, exda_primitives as exda
        >>> from exda_primitives.workbench.inspection import embeddings
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> found = embeddings(model, torch.rand(3, 3, 32, 32), blocks="latent")
        >>> {name: tuple(points.shape) for name, points in found.items()}
        {'latent.0.attn': (3, 128)}
    """
    chosen = attentions(model, blocks, with_tokens=of == "tokens")
    return stacked(collect(model, images, chosen, READERS[of], on_image))


def concatenated(embedded: Mapping[str, Tensor]) -> Tensor:
    """Concatenates the features of all attentions to (images, features); those with more features weigh more."""
    return torch.cat(list(embedded.values()), dim=1)


def standardised(points: Tensor) -> Tensor:
    """Scales every feature to mean 0 and standard deviation 1 over the images; a constant feature becomes 0.

    Args:
        points: (images, features).

    Raises:
        ExDAError: for points that are not finite.
    """
    if not points.isfinite().all():
        raise ExDAError(f"of {points.numel()} features {int((~points.isfinite()).sum())} are not finite numbers.")
    centred = points - points.mean(0)
    deviation = centred.square().mean(0).sqrt()
    # The threshold is relative: rounding leaves a constant feature a tiny deviation, which must not be blown up to 1.
    constant = deviation <= 1e-6 * points.abs().amax(0)
    return torch.where(constant, 0.0, centred / deviation.masked_fill(constant, 1))


def stacked(read: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Stacks each attention's tensors, one for each image, to (images, features).

    Raises:
        ExDAError: for features that are not finite.
    """
    found = {name: torch.stack(rows) for name, rows in read.items()}
    for name, points in found.items():
        finite = points.isfinite().all(1)
        if not finite.all():
            raise ExDAError(
                f"{name}: the features of {int((~finite).sum())} of {len(points)} images are not finite, the first "
                f"of image {int((~finite).int().argmax()) + 1}; are the weights damaged, or did half precision "
                "overflow?"
            )
    return found


def pooled_output(call: Call) -> Tensor:
    """Returns mean and standard deviation of every channel of the output, (2C,)."""
    # Without a size, tokens become a map of one column, which is enough: pooling ignores where a pixel is.
    maps = call.family.to_map(call.output)[0].flatten(1).float()
    return torch.cat([maps.mean(1), maps.std(1, correction=0)])


def pooled_tokens(call: Call) -> Tensor:
    """Returns the quantiles of every token's map, scaled to mean 1: (h * K * 16,)."""
    maps = compact_maps(call).flatten(2)
    levels = torch.linspace(0, 1, QUANTILES, device=maps.device)
    # Maps sum to 1: times the number of pixels, they do not depend on the image's size. (16, h, K) -> (h, K, 16).
    return torch.quantile(maps * maps.shape[-1], levels, dim=-1).permute(1, 2, 0).flatten()


READERS: Mapping[Of, Reader] = {"outputs": pooled_output, "tokens": pooled_tokens}
"""Kind of embedding -> what is kept of a call."""
