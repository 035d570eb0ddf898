"""ExDA on MDTA with a second argument: a prior that scales and shifts the input, or a mask of q, k and v."""

from __future__ import annotations

from torch import Tensor

from .. import ops
from ..errors import InputError
from ..ops.terms import PackedQKVTerms, Projection, projected
from .mdta import ExDAAttention
from .packed_qkv import PackedQKVAttention


class ExDAPriorAttention(ExDAAttention):
    """ExDA attention on MDTA whose input is scaled and shifted by a vector, the prior: ``x * scale + shift``.

    Linear layers compute scale and shift from the prior (B, P). A host has one layer for both (DiffIR: P -> 2C, scale
    first), one for the scale alone (Reti-Diff: P -> C, with x itself as the shift), or one each (HI-Diff). Constructed
    from scratch, or around a host without such a layer, the module is ``ExDAAttention`` with a second argument that has
    to be None. The tokens see the scaled and shifted input. All arguments are described at ``ExDAModule``. Sources:
    DiffIR (ICCV 2023), DIRformer; ExDA (2026).

    Shape:
        x (B, C, H, W) and, if given, prior (B, P) -> (B, C, H, W), any H, W >= 1.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W), for a prior that is not (B, P), and for
            any prior if there is no layer for it.

    Examples:
        >>> import torch
        >>> attention = ExDAPriorAttention(48, 2)
        >>> attention(torch.randn(1, 48, 17, 33), None).shape
        torch.Size([1, 48, 17, 33])
    """

    PARTS = ("temperature", "scale", "shift", "qkv", "qkv_dwconv", "project_out")
    """One layer for both is named as ``scale`` and as ``shift``."""
    OPTIONAL = frozenset({"scale", "shift"})

    def forward(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        """(B, C, H, W), perhaps with (B, P) -> (B, C, H, W)."""
        self.check_input("x", x)
        return super().forward(x if prior is None else self.modulated(x, prior))

    def linear_value(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        return super().linear_value(x if prior is None else self.modulated(x, prior))

    def modulated(self, x: Tensor, prior: Tensor) -> Tensor:
        """Returns x (B, C, H, W) scaled and shifted by the prior (B, P)."""
        scale, shift = (self.optional_part(name) for name in ("scale", "shift"))
        if scale is None or shift is None:
            raise InputError(f"{self.own_name()}: got a prior, and has no layer for one; expected None.")
        if prior.ndim != 2 or prior.shape[0] not in (1, x.shape[0]):
            raise InputError(
                f"{self.own_name()}: expected a prior (B, P) for B = {x.shape[0]} maps, got {tuple(prior.shape)}."
            )
        # (B, C, 1, 1), or (B, 2C, 1, 1) from a layer for both.
        factors: Tensor = scale(prior)[:, :, None, None]
        if shift is not scale:
            shifted: Tensor = x * factors + shift(prior)[:, :, None, None]
            return shifted
        factor, *offset = factors.split(self.dim, dim=1)
        # Without a shift of its own the layer is Reti-Diff's: x * scale + x.
        return x * factor + (offset[0] if offset else x)


class ExDAMaskedAttention(PackedQKVAttention):
    """ExDA attention on MDTA whose q, k and v are multiplied by a mask, for masked pre-training (MaskDCPT).

    V' is computed from the masked V; the tokens see the unmasked input. All arguments are described at ``ExDAModule``.
    Sources: MaskDCPT (2025); ExDA (2026).

    Shape:
        x (B, C, H, W) and, if given, mask (B or 1, 1, H/m, W/n), each entry for m x n pixels -> (B, C, H, W).

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, C, H, W), and for a mask of another shape.

    Examples:
        >>> import torch
        >>> attention = ExDAMaskedAttention(48, 2)
        >>> attention(torch.randn(1, 48, 16, 32), torch.ones(1, 1, 4, 4)).shape
        torch.Size([1, 48, 16, 32])
    """

    PROJECTIONS = 3

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, H, W), perhaps with (B, 1, H/m, W/n) -> (B, C, H, W)."""
        self.check_input("x", x)
        terms = self.terms()
        self.check_dtypes(x, terms.qkv.depthwise, terms.value, terms.tokens)
        if mask is not None:
            # Not by ``_replace``, which the compiler of PyTorch 2.6 does not trace.
            terms = PackedQKVTerms(
                terms.temperature, self._masked(terms.qkv, mask, x), terms.project, terms.value, terms.tokens
            )
        return ops.mdta(x, terms)

    def linear_value(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        qkv = self.terms().qkv
        return projected(x, qkv if mask is None else self._masked(qkv, mask, x))[:, -self.dim :]

    def _masked(self, qkv: Projection, mask: Tensor, x: Tensor) -> Projection:
        # q, k, v = mask * DWConv3x3(Conv1x1(x)): the mask comes after both convolutions.
        pointwise, depthwise = qkv
        whole = self._of_every_pixel(mask, x)
        return Projection(pointwise, lambda u: depthwise(u) * whole)

    def _of_every_pixel(self, mask: Tensor, x: Tensor) -> Tensor:
        """Repeats each entry for its m x n pixels: (B or 1, 1, H/m, W/n) -> (B or 1, 1, H, W)."""
        shape, (height, width) = tuple(mask.shape), x.shape[2:]
        fits = len(shape) == 4 and shape[0] in (1, x.shape[0]) and shape[1] == 1 and 0 not in shape
        if not fits or height % shape[2] or width % shape[3]:
            raise InputError(
                f"{self.own_name()}: expected a mask (B, 1, H/m, W/n) with whole m and n for x of shape "
                f"{tuple(x.shape)}, got {shape}."
            )
        rows = mask.repeat_interleave(height // shape[2], dim=2)
        return rows.repeat_interleave(width // shape[3], dim=3)
