"""Global spatial tokens (GST) of ExDA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.bare import does_more, is_pointwise
from ..ops.terms import Scale
from ..ops.tokens import compact_maps, scaled, upsample_flat
from ..surgery.tracing import as_one_call, is_symbolic
from .checks import check_dtypes, check_heads, check_map
from .config import check_choice, check_integer


class GST(nn.Module):
    """``G = upsample(softmax_space(Phi(AvgPool(x))))``, h*K soft maps of the whole image (ExDA, GST).

    Channel attention has no slot for the image as a whole. A token is such a slot: concatenated to q, k and v as one
    more channel, it lets every channel attend to a learned region.

    Args:
        dim: C, channels of x.
        num_heads: h.
        tokens: K, maps per head.
        stride: kernel and stride of the average pooling (ceil mode, padding not counted: any H, W >= 1).
        scale: ``"sum"``: a compact map sums to 1 (the paper's; values shrink as 1/pixels); ``"mean"``: it has mean 1.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Shape:
        (B, C, H, W) -> (B, h, K, H, W), non-negative, in float32 for half-precision input.

    Raises:
        ConfigError: for tokens or stride below 1, an unknown scale, or C not divisible by h.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Examples:
        >>> import torch
        >>> token = GST(8, num_heads=2, tokens=3)
        >>> token(torch.randn(1, 8, 7, 5)).shape
        torch.Size([1, 2, 3, 7, 5])
        >>> token.maps(torch.randn(1, 8, 7, 5)).sum((-2, -1)).allclose(torch.tensor(1.0))
        True
        >>> token
        GST(dim=8, num_heads=2, tokens=3, stride=2, scale='sum')
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        tokens: int = 1,
        stride: int = 2,
        scale: Scale = "sum",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_integer("GST", "tokens", tokens, 1)
        check_integer("GST", "stride", stride, 1)
        check_choice("GST", "scale", scale, Scale)
        check_heads("GST", dim, num_heads)
        self.dim, self.num_heads, self.tokens, self.stride, self.scale = dim, num_heads, tokens, stride, scale
        # Without bias: the softmax over space would cancel it.
        self.phi = nn.Conv2d(dim, num_heads * tokens, 1, bias=False, device=device, dtype=dtype)

    def maps(self, x: Tensor) -> Tensor:
        """Returns the compact maps, (B, C, H, W) -> (B, h, K, ceil(H/stride), ceil(W/stride)); each sums to 1."""
        check_map(self, "x", x, self.dim)
        if is_pointwise(self.phi):
            check_dtypes(self, "x", x, {"phi.weight": self.phi.weight})
        # X~ = AvgPool_s(x); softmax over space of Phi(X~), for half types in float32.
        return compact_maps(x, self.phi, self.stride).unflatten(1, (self.num_heads, self.tokens))

    def forward(self, x: Tensor) -> Tensor:
        """Returns G, (B, C, H, W) -> (B, h, K, H, W)."""
        if is_symbolic(x):
            return as_one_call(self, x)
        maps = self.maps(x).flatten(1, 2)
        # Bilinear; plateaus are flat to the last bit, since rounding in them would decide Histoformer's sort.
        return upsample_flat(scaled(maps, self.scale), x.shape[-2:]).unflatten(1, (self.num_heads, self.tokens))

    def __repr__(self) -> str:
        return (
            f"GST(dim={self.dim}, num_heads={self.num_heads}, tokens={self.tokens}, stride={self.stride}, "
            f"scale={self.scale!r})"
        )


def phi_weight(token: nn.Module) -> Tensor | None:
    """Returns Phi's weight (h*K, C, 1, 1) if ``token`` is a plain ``GST``; None if it has to be called as a module."""
    if type(token) is GST and not does_more(token) and is_pointwise(token.phi):
        return token.phi.weight
    return None
