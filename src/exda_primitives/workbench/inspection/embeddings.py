"""Images as points: what each attention says of an image as a whole, in a few numbers."""

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

QUANTILES = 16
"""Of a token's map, evenly spaced from its smallest value to its largest."""


def embeddings(
    model: nn.Module,
    images: Iterable[Tensor],
    blocks: Patterns = None,
    of: Of = "outputs",
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """What each attention makes of each image, pooled over space.

    ``"outputs"``: mean and standard deviation of every channel of the attention's output. The mean alone would miss
    what noise, rain and blur do: they have no mean, but change how much a channel varies. Both do not depend on the
    image's size, nor on where in it something is.

    ``"tokens"``: 16 quantiles of each global spatial token's map, times its number of pixels (all 1 for a token that
    looks at everything alike). They say how, not where it looks: where it does is a matter of what the image shows,
    and maps pooled to 8 x 8 pixels found the same image rather than the same degradation (all blocks of
    the demo's network, five degradations of 24 images: an NMI of 0.06 instead of 0.37).

    Args:
        model: patched or not, of any known family; its mode, hooks and weights are afterwards what they were.
        images: (C, H, W) floating point in [0, 1], of any size; shown one by one.
        blocks: pattern or patterns of names, as ``include`` of ``exda_primitives.patch``; all by default.
        of: what to pool; tokens are there in ExDA attentions alone.
        on_image: called with the number of images done.

    Returns:
        Name of the attention -> (images, features) float32 on the CPU: 2C features of outputs, 16 h K of tokens.

    Raises:
        NoMatchError: for a model without a known attention.
        NotPatchedError: for tokens of a model that has none.
        ImageError: for no images, and for what is none.
        ExDAError: for features that are not finite.

    Example:
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
    """All attentions' features side by side, (images, features); a wide attention weighs more than a narrow one."""
    return torch.cat(list(embedded.values()), dim=1)


def standardised(points: Tensor) -> Tensor:
    """Every feature with mean 0 and standard deviation 1 over the images; one that is the same in all is 0."""
    centred = points - points.mean(0)
    deviation = centred.square().mean(0).sqrt()
    # What rounding leaves of a constant is no feature.
    constant = deviation <= 1e-6 * points.abs().amax(0)
    return torch.where(constant, 0.0, centred / deviation.masked_fill(constant, 1))


def stacked(read: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """A row for each image.

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
    """Mean and standard deviation of every channel, (2C,)."""
    # How the pixels lie does not matter.
    maps = call.family.to_map(call.output)[0].flatten(1).float()
    return torch.cat([maps.mean(1), maps.std(1, correction=0)])


def pooled_tokens(call: Call) -> Tensor:
    """Quantiles of every token's map, of mean 1, (h * K * 16,)."""
    maps = compact_maps(call).flatten(2)
    levels = torch.linspace(0, 1, QUANTILES, device=maps.device)
    return torch.quantile(maps * maps.shape[-1], levels, dim=-1).permute(1, 2, 0).flatten()


READERS: Mapping[Of, Reader] = {"outputs": pooled_output, "tokens": pooled_tokens}
"""What is kept of a call for each kind of embedding."""
