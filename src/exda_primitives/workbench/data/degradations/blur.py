"""Blur by a camera that moves during the exposure."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .tensors import Strength, as_batch, rand, randn, strength

LENGTH = (8.0, 24.0)
TURN = (0.0, 3.0)

_STEPS = 64
_REACH = 14
"""Pixels from the middle of a path to the farthest place it can get to, and two more."""


def motion_blur(clean: Tensor, generator: torch.Generator, *, length: Strength = None, turn: Strength = None) -> Tensor:
    """Averages the image over the path of a shaking camera: a convolution with a kernel that sums to 1.

    The path has a constant speed and a direction that does a random walk. Beyond its borders an image is continued by
    its last pixels.

    Sources: straight and curved paths as kernels: A. Levin et al., "Understanding and Evaluating Blind Deconvolution
    Algorithms", CVPR 2009; random paths for training: G. Boracchi and A. Foi, "Modeling the Performance of Image
    Restoration from Motion Blur", TIP 2012, and O. Kupyn et al., "DeblurGAN: Blind Motion Deblurring Using Conditional
    Adversarial Networks", CVPR 2018, whose paths also have impulses. The ranges are this library's. GoPro's blur, by
    comparison, differs from place to place, as objects move too.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: of the path and of the strengths that are None.
        length: of the path in pixels, usually in ``LENGTH``, at most 24; 0 is no blur.
        turn: standard deviation of the turn from its first direction to its last, in radians, usually in ``TURN``;
            0 is a straight path.

    Returns:
        As ``clean``, in [0, 1].

    Raises:
        ImageError: if ``clean`` holds no float images.

    Example:
        >>> import torch
        >>> clean = torch.rand(3, 32, 32)
        >>> still = motion_blur(clean, torch.Generator().manual_seed(0), length=0)
        >>> torch.allclose(still, clean)
        True
    """
    images = as_batch(clean)
    batch, channels = images.shape[:2]
    length = strength(length, LENGTH, generator, images).clamp(max=LENGTH[1])
    turn = strength(turn, TURN, generator, images)
    kernels = _path_kernels(length.flatten(1), turn.flatten(1), generator)
    # Channels of all images side by side, each with the kernel of its image.
    continued = F.pad(images, (_REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    blurred = F.conv2d(continued, kernels.to(images.dtype).repeat_interleave(channels, 0), groups=batch * channels)
    return blurred.clamp(0, 1).reshape(clean.shape)


def _path_kernels(length: Tensor, turn: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 1, K, K) float32 that sum to 1, from two (B, 1)."""
    batch = len(length)
    first = 2 * math.pi * rand((batch, 1), generator, length)
    turns = randn((batch, _STEPS), generator, length) * turn / math.sqrt(_STEPS)
    direction = first + turns.cumsum(1)
    steps = torch.stack([direction.sin(), direction.cos()], -1) * (length / _STEPS)[..., None]
    path = steps.cumsum(1)
    path = path - path.mean(1, keepdim=True)
    # Each point of the path spreads over the four pixels around it, bilinearly.
    offsets = torch.arange(-_REACH, _REACH + 1, device=length.device, dtype=length.dtype)
    weights = (1 - (path[..., None] - offsets).abs()).clamp(min=0)
    kernels = torch.einsum("bsi,bsj->bij", weights[:, :, 0], weights[:, :, 1])
    return (kernels / kernels.sum((1, 2), keepdim=True))[:, None]
