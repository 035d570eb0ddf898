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
    arguments (``bias`` is that of ``qkv``; ``proj`` always has one, as there), and their state dicts load with only
    ``value.*``, ``token.*``, ``alpha`` and ``token_gate`` missing. All arguments are described at ``ExDAModule``.
    Source: XCiT (NeurIPS 2021), section 3.2; ExDA (2026).

    The primitives work on maps, and tokens do not say whether 12 of them are 2 x 6 or 3 x 4 pixels. Wherever global
    tokens or a value with a convolution are asked for, the size has to be known, from the first of these that is there:
    ``grid`` of the call, for those who write the model; what the parent's call says, in a model changed by ``patch``;
    the attribute ``grid``, set by hand. The parent's is known while its call lasts, in the thread that makes it;
    checkpointed by itself, the attention runs again with the size that its input had.

    Attributes:
        grid: (H, W) of the map where no call says it; None at first. Kept by pickle and deepcopy, not in state dicts.

    Shape:
        x (B, H*W, C) -> (B, H*W, C), pixels row by row, any H, W >= 1 and no class token, any floating-point dtype;
        norms, softmax and Gram sums of half types are taken in float32.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other.
        InputError: for anything but a non-empty floating-point (B, N, C), and for a size that is needed and not known,
            or whose H * W is not N.

    Example:
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
        # ``grids``: of the parents' calls that this thread is in. torch.compile follows it.
        self._told = threading.local()

    def hand_down(self, grid: Grid | None) -> None:
        """Says what the parent's call knows of the map's size (H, W), until ``take_back``; None for nothing."""
        self._told.grids = (*self._grids_told(), grid)

    def take_back(self) -> None:
        """Ends what the last ``hand_down`` in this thread began."""
        self._told.grids = self._grids_told()[:-1]

    def _grids_told(self) -> tuple[Grid | None, ...]:
        grids: tuple[Grid | None, ...] = getattr(self._told, "grids", ())
        return grids

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """(B, N, C) -> (B, N, C); ``grid`` is (H, W) with H * W = N."""
        self.check_input("x", x, "BNC")
        terms = LinearTerms(
            self.part("temperature"), self.part("qkv"), self.part("proj"), self.value_terms(), self.token_terms()
        )
        self.check_dtypes(x, terms.qkv, terms.value, terms.tokens)
        # Where nothing looks at a pixel's neighbours, any arrangement gives the same.
        size = self._needed_size(x, grid) if self._looks_at_neighbours() else (x.shape[1], 1)
        return ops.xca(x, size, terms)

    def call_when_traced(self, x: Any, grid: Any = None) -> Any:
        """As one call in the graph that the size goes with: no parent is called when the graph is."""
        told = [known for known in (grid, *self._grids_told()[-1:], self.grid) if known is not None]
        return as_one_call(self, x, grid=told[0] if told else None)

    def linear_value(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        return to_map(self.part("qkv")(x)[..., -self.dim :], self._needed_size(x, grid))

    def _looks_at_neighbours(self) -> bool:
        value = self.value
        pixelwise = value is None or (type(value) is NonlinearValue and value.form not in WITH_BRANCH)
        return self.token is not None or not pixelwise

    def map_size(self, x: Tensor, grid: Grid | None = None) -> Grid | None:
        """(H, W) of the map whose pixels ``x`` (B, N, C) are, by ``grid``, the parent's call or the attribute.

        None where none of these says it.

        Raises:
            InputError: for one that does not have N pixels.
        """
        for known in (grid, grid_before(x), *self._grids_told()[-1:], self.grid):
            if known is not None:
                height, width = known
                if height * width != x.shape[1]:
                    raise InputError(
                        f"{self.own_name()}: got x of shape {tuple(x.shape)}, {x.shape[1]} tokens, for a map of "
                        f"{height} x {width} = {height * width} pixels; expected one token a pixel, row by row, and no "
                        f"class token. Set the module's grid = (H, W), or pass grid=(H, W), to the tokens' own size."
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
        # A copy is called anew.
        return {key: held for key, held in self.__dict__.items() if key != "_told"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_told": threading.local()})  # type: ignore[no-untyped-call]

    def has_bias(self) -> bool:
        """See ``ExDAModule.has_bias``."""
        return self.part("qkv").bias is not None
