"""ExDA on cross-covariance attention: tokens in, tokens out."""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor, nn

from .. import ops
from ..errors import InputError
from ..ops.layout import to_map
from ..ops.terms import LinearTerms
from ..surgery.tracing import as_one_call
from .base import ExDAModule
from .grids import Grid, grid_before, remember_grid
from .value import WITH_BRANCH, NonlinearValue


class ExDAXCAttention(ExDAModule):
    """ExDA attention on cross-covariance attention (XCA): channel attention on tokens, with linear projections.

    A drop-in for timm's XCiT ``XCA(dim, num_heads, qkv_bias)`` and EdgeNeXt's ``CrossCovarianceAttn``: the same first
    arguments (``bias`` applies to ``qkv``; ``proj`` always has one, as there), and their state dicts load with only
    ``value.*``, ``token.*``, ``alpha`` and ``token_gate`` missing. All arguments are described at ``ExDAModule``.
    Source: XCiT (NeurIPS 2021), section 3.2; ExDA (2026).

    The primitives work on maps, but 12 tokens may be 2 x 6 or 3 x 4 pixels. Global tokens, and a value with a
    convolution, therefore need the size (H, W). It is taken from the first of these that gives it: ``grid`` of the call
    (for authors of the model); the parent's call (in a model changed by ``patch``); the attribute ``grid``, set by
    hand. The parent's size is valid during the parent's call, in the thread that makes it. An attention that is
    checkpointed by itself runs again with the size that its input had.

    Attributes:
        grid: (H, W) of the map, used if no call gives it; None at first. Kept by pickle and deepcopy, not in state
            dicts.

    Shape:
        x (B, H*W, C) -> (B, H*W, C), pixels row by row, any H, W >= 1 and no class token, any floating-point dtype;
        norms, softmax and Gram sums of half types are taken in float32.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, N, C); if the size is needed and unknown; and if
            H * W is not N.

    Examples:
        >>> import torch
        >>> attention = ExDAXCAttention(48, 4, bias=True)
        >>> attention(torch.randn(1, 7 * 5, 48), grid=(7, 5)).shape
        torch.Size([1, 35, 48])
    """

    PARTS = ("temperature", "qkv", "proj")

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {"qkv": nn.Linear(dim, 3 * dim, bias=bias, **factory), "proj": nn.Linear(dim, dim, **factory)}

    def init_attributes(self) -> None:
        """See ``ExDAModule.init_attributes``."""
        self.grid: Grid | None = None
        # ``_local.grids``: a stack of sizes, one for each parent's call that this thread is in, because several threads
        # may call one model at once. torch.compile can trace a ``threading.local``.
        self._local = threading.local()

    def push_grid(self, grid: Grid | None) -> None:
        """Sets the map's size (H, W) that the parent's call gives, until ``pop_grid``; None if it gives none."""
        self._local.grids = (*self._parent_grids(), grid)

    def pop_grid(self) -> None:
        """Undoes the last ``push_grid`` in this thread."""
        self._local.grids = self._parent_grids()[:-1]

    def _parent_grids(self) -> tuple[Grid | None, ...]:
        grids: tuple[Grid | None, ...] = getattr(self._local, "grids", ())
        return grids

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); ``grid`` is (H, W) with H * W = N."""
        self.check_input("x", x, "BNC")
        terms = LinearTerms(
            self.part("temperature"), self.part("qkv"), self.part("proj"), self.value_terms(), self.token_terms()
        )
        self.check_dtypes(x, terms.qkv, terms.value, terms.tokens)
        # If nothing looks at a pixel's neighbours, every arrangement of the N pixels gives the same: take N x 1.
        size = self._needed_size(x, grid) if self._looks_at_neighbours() else (x.shape[1], 1)
        return ops.xca(x, size, terms)

    def call_when_traced(self, x: Any, grid: Any = None) -> Any:
        """Records the module as one call in the graph, with the size: a graph calls no parent that could give it."""
        grids = [known for known in (grid, *self._parent_grids()[-1:], self.grid) if known is not None]
        return as_one_call(self, x, grid=grids[0] if grids else None)

    def linear_value(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        # q, k, v = chunk(qkv, 3): V is the last third.
        return to_map(self.part("qkv")(x)[..., -self.dim :], self._needed_size(x, grid))

    def _looks_at_neighbours(self) -> bool:
        value = self.value
        pixelwise = value is None or (type(value) is NonlinearValue and value.form not in WITH_BRANCH)
        return self.token is not None or not pixelwise

    def map_size(self, x: Tensor, grid: Grid | None = None) -> Grid | None:
        """Returns (H, W) of the map with the pixels ``x`` (B, N, C): from ``grid``, the parent's call or the attribute.

        None if none of these gives it.

        Raises:
            InputError: if H * W is not N.
        """
        # ``grid_before``: in a backward pass, the size of the first run; the parent's call is over by then.
        for known in (grid, grid_before(x), *self._parent_grids()[-1:], self.grid):
            if known is not None:
                height, width = known
                if height * width != x.shape[1]:
                    raise InputError(
                        f"{self.own_name()}: got x of shape {tuple(x.shape)}, {x.shape[1]} tokens, for a map of "
                        f"{height} x {width} = {height * width} pixels; expected one token per pixel, row by row, and "
                        f"no class token. Set the module's grid = (H, W), or pass grid=(H, W), to the tokens' own size."
                    )
                remember_grid(x, known)
                return height, width
        return None

    def _needed_size(self, x: Tensor, grid: Grid | None) -> Grid:
        if (known := self.map_size(x, grid)) is not None:
            return known
        raise InputError(
            f"{self.own_name()}: got x of shape {tuple(x.shape)} and cannot tell the size of the map that its "
            f"{x.shape[1]} tokens are: the call that led here named neither (H, W) nor a map (B, C, H, W). Set the "
            f"module's grid = (H, W), or pass grid=(H, W)."
        )

    def __getstate__(self) -> dict[str, Any]:
        # A ``threading.local`` cannot be pickled, and a copy is inside no parent's call.
        return {key: held for key, held in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_local": threading.local()})  # type: ignore[no-untyped-call]

    def has_bias(self) -> bool:
        """See ``ExDAModule.has_bias``."""
        return self.part("qkv").bias is not None
