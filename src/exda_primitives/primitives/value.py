"""The residual non-linear value of ExDA."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bare import does_more, is_depthwise, is_pointwise, tensor_of
from ..ops.terms import Branch, ValueForm, ValuePosition, ValueTerms
from ..ops.value import formed
from ..surgery.tracing import as_one_call, is_symbolic
from .checks import check_dtypes, check_heads, check_map
from .config import Init, check_value

WITH_BRANCH = ("residual", "replace")
"""The forms that use g, and so have parameters."""
BRANCH_NAMES = tuple(f"{conv}.{kind}" for conv in ("conv_in", "dwconv", "conv_out") for kind in ("weight", "bias"))
"""Names of g's parameters in a ``NonlinearValue``, in the order of ``Branch``."""


class NonlinearValue(nn.Module):
    """``V' = V + g(V)``, ``g = Conv1x1 -> DWConv3x3 -> GELU -> Conv1x1``, channels kept (ExDA, non-linear value).

    Channel attention mixes value channels with weights that are non-negative and sum to 1: each output channel stays in
    the convex hull of the value channels. With a non-linear value it can leave the hull.

    Args:
        dim: C, channels of the value.
        form: ``"residual"`` V + g(V); ``"replace"`` g(V); ``"gelu"`` GELU(V) and ``"sigmoid"`` sigmoid(V), both without
            parameters; ``"none"`` V.
        init: ``"paper"`` leaves g as PyTorch initialises it; ``"identity"`` zeroes its last convolution, so that
            V' = V (``form="residual"`` or ``"none"`` only).
        device: device of the parameters.
        dtype: dtype of the parameters.

    Shape:
        (B, C, H, W) -> (B, C, H, W), any H, W >= 1, any floating-point dtype.

    Raises:
        ConfigError: for an unknown form or init, or ``init="identity"`` with a form that replaces V.
        InputError: for anything but a non-empty floating-point (B, C, H, W).

    Examples:
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
        if form in WITH_BRANCH:
            # g = Conv1x1 -> DWConv3x3 -> GELU -> Conv1x1, all C -> C.
            factory: dict[str, Any] = {"device": device, "dtype": dtype}
            self.conv_in = nn.Conv2d(dim, dim, 1, **factory)
            self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **factory)
            self.conv_out = nn.Conv2d(dim, dim, 1, **factory)
        if init == "identity":
            self.start_at_identity()

    def start_at_identity(self) -> None:
        """Zeroes g's last convolution in place, so that V + g(V) = V."""
        if self.form == "residual":
            # Only the last: t = GELU(DWConv(Conv1x1(V))) stays non-zero, so that this convolution gets a gradient.
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(cast(Tensor, self.conv_out.bias))

    def branch(self) -> Branch | None:
        """Returns g's parameters if they describe it completely; None if its layers have to be called as modules."""
        first, second, last = [self._modules.get(name) for name in ("conv_in", "dwconv", "conv_out")]
        if not (is_pointwise(first) and is_depthwise(second) and is_pointwise(last)):
            return None
        parameters = [tensor_of(layer, name) for layer in (first, second, last) for name in ("weight", "bias")]
        given = [each for each in parameters if each is not None]
        return Branch(*given) if len(given) == len(parameters) else None

    def forward(self, v: Tensor) -> Tensor:
        """Returns V', (B, C, H, W) -> (B, C, H, W)."""
        if is_symbolic(v):
            return as_one_call(self, v)
        check_map(self, "v", v, self.dim)
        if self.form in WITH_BRANCH and (branch := self.branch()):
            check_dtypes(self, "v", v, dict(zip(BRANCH_NAMES, branch, strict=True)))
        return formed(v, self.form, self._g if self.form in WITH_BRANCH else None)

    def _g(self, v: Tensor) -> Tensor:
        # g(V) = W2 GELU(DWConv(W1 V)); the layers are called, so that their hooks run.
        g: Tensor = self.conv_out(F.gelu(self.dwconv(self.conv_in(v))))
        return g

    def __repr__(self) -> str:
        return f"NonlinearValue(dim={self.dim}, form={self.form!r}, init={self.init!r})"


def value_terms(value: nn.Module, position: ValuePosition) -> ValueTerms:
    """Returns a module V -> V' in the form that ``ops`` takes: its parameters if they describe it, else the module."""
    if type(value) is NonlinearValue and not does_more(value):
        if value.form not in WITH_BRANCH:
            return ValueTerms(value.form, position, None)
        if branch := value.branch():
            return ValueTerms(value.form, position, branch)
    # ``whole`` is called; form and branch are then not looked at.
    return ValueTerms("none", position, None, value)
