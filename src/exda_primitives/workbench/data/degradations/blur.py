"""Motion blur, by a camera that moves during the exposure."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .tensors import Strength, as_batch, rand, randn, strength

LENGTH = (8.0, 24.0)
"""Usual length of a path in pixels."""

TURN = (0.0, 3.0)
"""Usual standard deviation of a path's turn in radians."""

_STEPS = 64
"""Steps of the random walk that makes a path."""

_REACH = 14
"""Half the side of a kernel in pixels: a path of length 24 stays within 12 of its middle, plus two."""


def motion_blur(clean: Tensor, generator: torch.Generator, *, length: Strength = None, turn: Strength = None) -> Tensor:
    """Averages the image over the path of a shaking camera: a convolution with a kernel that sums to 1.

    The camera has constant speed, and its direction follows a random walk. The image is padded with its border pixels.

    Sources: straight and curved paths as kernels: A. Levin et al., "Understanding and Evaluating Blind Deconvolution
    Algorithms", CVPR 2009; random paths for training: G. Boracchi and A. Foi, "Modeling the Performance of Image
    Restoration from Motion Blur", TIP 2012, and O. Kupyn et al., "DeblurGAN: Blind Motion Deblurring Using Conditional
    Adversarial Networks", CVPR 2018, whose paths also have impulses. The ranges are this library's. GoPro's blur, by
    comparison, differs from place to place, as objects move too.

    Args:
        clean: (B, C, H, W) or (C, H, W) in [0, 1].
        generator: draws the path, and each strength that is None.
        length: length of the path in pixels, usually in ``LENGTH``, at most 24; 0 means no blur.
        turn: standard deviation of the angle between the path's first and last direction, in radians, usually in
            ``TURN``; 0 means a straight path.

    Returns:
        The blurred images, same shape and dtype as ``clean``, in [0, 1].

    Raises:
        ImageError: ``clean`` is not a float tensor of images.

    Examples:
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
    # One grouped convolution: all channels of all images side by side, (1, B*C, H, W), each with its image's kernel.
    continued = F.pad(images, (_REACH,) * 4, mode="replicate").flatten(0, 1)[None]
    blurred = F.conv2d(continued, kernels.to(images.dtype).repeat_interleave(channels, 0), groups=batch * channels)
    return blurred.clamp(0, 1).reshape(clean.shape)


def _path_kernels(length: Tensor, turn: Tensor, generator: torch.Generator) -> Tensor:
    """Returns a kernel per image, (B, 1, K, K) float32 with sum 1.

    Args:
        length: (B, 1), length of each path in pixels.
        turn: (B, 1), standard deviation of its turn in radians.
        generator: draws the paths.
    """
    batch = len(length)
    first = 2 * math.pi * rand((batch, 1), generator, length)
    # The sum of the turns has standard deviation `turn`.
    turns = randn((batch, _STEPS), generator, length) * turn / math.sqrt(_STEPS)
    direction = first + turns.cumsum(1)
    steps = torch.stack([direction.sin(), direction.cos()], -1) * (length / _STEPS)[..., None]
    path = steps.cumsum(1)  # (B, steps, 2): y and x
    # Centred, so that the blur does not shift the image.
    path = path - path.mean(1, keepdim=True)
    # Each point of the path is spread over the four pixels around it, bilinearly: weight (1 - |dy|) (1 - |dx|).
    offsets = torch.arange(-_REACH, _REACH + 1, device=length.device, dtype=length.dtype)
    weights = (1 - (path[..., None] - offsets).abs()).clamp(min=0)
    kernels = torch.einsum("bsi,bsj->bij", weights[:, :, 0], weights[:, :, 1])
    return (kernels / kernels.sum((1, 2), keepdim=True))[:, None]
