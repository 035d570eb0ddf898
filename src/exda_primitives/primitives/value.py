"""The residual non-linear value of ExDA."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ops.terms import Branch, ValueForm, ValuePosition, ValueTerms
from ..ops.value import nonlinear_value
from .checks import check_heads, check_map
from .config import Init, check_value
from .tracing import as_one_call, is_symbolic


class NonlinearValue(nn.Module):
    """``V' = V + g(V)``, ``g = Conv1x1 -> DWConv3x3 -> GELU -> Conv1x1``, channels kept (ExDA, non-linear value).

    Channel attention mixes value channels with weights that are non-negative and sum to 1, so that each output channel
    stays in the convex hull of the value channels; a non-linear value leaves it.

    Args:
        dim: C, channels of the value.
        form: ``"residual"`` V + g(V); ``"replace"`` g(V); ``"gelu"`` GELU(V) and ``"sigmoid"`` sigmoid(V), both without
            parameters; ``"none"`` V.
        init: ``"paper"`` leaves g as PyTorch initialises it; ``"identity"`` zeroes its last convolution, so that
            V' = V (``form="residual"`` or ``"none"`` only).
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        (B, C, H, W) -> (B, C, H, W), any H, W >= 1, any floating-point dtype.

    Raises:
        ConfigError: for an unknown form or init, or ``init="identity"`` with a form that replaces V.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Example:
        >>> import torch
        >>> value = NonlinearValue(8, init="identity")
        >>> v = torch.randn(2, 8, 5, 7)
        >>> torch.equal(value(v), v)
        True
        >>> value
        NonlinearValue(dim=8, form='residual', init='identity')
    """

    def __init__(
        self,
        dim: int,
        form: ValueForm = "residual",
        *,
        init: Init = "paper",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_value("NonlinearValue", "form", form, init)
        check_heads("NonlinearValue", dim, 1)
        self.dim, self.form, self.init = dim, form, init
        if form in ("residual", "replace"):
            factory: dict[str, Any] = {"device": device, "dtype": dtype}
            self.conv_in = nn.Conv2d(dim, dim, 1, **factory)
            self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **factory)
            self.conv_out = nn.Conv2d(dim, dim, 1, **factory)
        if init == "identity":
            self.start_at_identity()

    def start_at_identity(self) -> None:
        """Zeroes g's last convolution in place, so that V + g(V) = V."""
        if self.form == "residual":
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(cast(Tensor, self.conv_out.bias))

    def terms(self, position: ValuePosition = "before") -> ValueTerms:
        """The parameters as ``ops`` takes them."""
        if self.form not in ("residual", "replace"):
            return ValueTerms(self.form, position, None)
        convs = (self.conv_in, self.dwconv, self.conv_out)
        weights = (cast(Tensor, p) for conv in convs for p in (conv.weight, conv.bias))
        return ValueTerms(self.form, position, Branch(*weights))

    def forward(self, v: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if is_symbolic(v):
            return as_one_call(self, v)
        check_map(self, "v", v, self.dim)
        return nonlinear_value(v, self.terms())

    def __repr__(self) -> str:
        return f"NonlinearValue(dim={self.dim}, form={self.form!r}, init={self.init!r})"
