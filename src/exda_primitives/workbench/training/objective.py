"""The loss and the learning rate of a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import RecipeConfig


def loss_of(restored: Tensor, clean: Tensor, recipe: RecipeConfig) -> Tensor:
    """Returns ``l1 * mean |r - c| + fft * mean |F(r) - F(c)|`` with the 2D DFT F, real and imaginary part apart.

    F sums over the pixels without a factor (``torch.fft.rfft2`` with ``norm="backward"``), and the mean is over the
    half spectrum (B, C, H, W // 2 + 1, 2). So the second term of white noise grows in proportion to the side of the
    patch, and its weight holds for patches of one size.

    Sources: the losses of PromptIR and AdaIR (L1), and of MoCE-IR and MIRAGE (weight 0.1 for the DFT's, patches of
    128). The losses that some networks add for their routing (MoCE-IR, AMIR) are left out, as in ``exda.models``.

    Args:
        restored: (B, C, H, W); cast to the dtype of ``clean``.
        clean: (B, C, H, W).
        recipe: provides the weights ``l1`` and ``fft``.

    Returns:
        A scalar tensor in the dtype of ``clean``.
    """
    restored = restored.to(clean.dtype)
    loss = recipe.l1 * F.l1_loss(restored, clean)
    if recipe.fft:
        ours, theirs = (torch.view_as_real(torch.fft.rfft2(each)) for each in (restored, clean))
        loss = loss + recipe.fft * F.l1_loss(ours, theirs)
    return loss


def learning_rate(step: int, steps: int, recipe: RecipeConfig) -> float:
    """Returns the learning rate of a step: a linear warm-up, then half a cosine down to 0 at ``cosine_to`` lengths.

    Between the warm-up and ``cosine_from`` it is constant.

    Args:
        step: 0 to ``steps - 1``.
        steps: length of the run.
        recipe: provides ``learning_rate``, ``warm_up``, ``cosine_from`` and ``cosine_to``.

    Examples:
        >>> recipe = RecipeConfig(steps=10, learning_rate=1.0, warm_up=0.4)
        >>> [round(learning_rate(step, 10, recipe), 2) for step in range(10)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    warm_up = round(recipe.warm_up * steps)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    begin = warm_up if recipe.cosine_from is None else round(recipe.cosine_from * steps)
    if recipe.cosine_to is None or step < begin:
        return recipe.learning_rate
    done = (step - begin) / max(recipe.cosine_to * steps - begin, 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
