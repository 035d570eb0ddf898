"""ExDA's non-linear value on window attention (Swin): this library's extension, not the paper's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError, InputError
from ..ops.layout import to_map
from ..ops.terms import WindowTerms
from .base import ExDAModule


class ExDAWindowAttention(ExDAModule):
    """Window attention (W-MSA) with ExDA's non-linear value: ``softmax(scale * q k^T + bias + mask) V'``.

    Each pixel takes a convex combination of the values of its window, so that this value path is as linear as that of
    channel attention, and ``V' = V + g(V)`` mends it in the same way; g's 3x3 convolution sees zeros beyond the window,
    and in shifted windows at the border of the image all pixels: the mask is the attention's alone.
    The paper applies its primitives only to channel attention, and measured no window attention. It has no tokens:
    across channels a token is one more channel, here it would be a pixel that lies nowhere. ``tokens`` has to be 0.

    Constructed, it is SwinIR's and timm's ``WindowAttention``, whose state dicts load with only ``value.*`` missing.
    Around a host it may also be HAT's, which is called with the index of relative positions, and Swin V2's (Swin2SR):
    cosines in place of products, a learnt scale, and positions from a small network. Masks, positions and the parent's
    shift stay the host's. Other arguments are described at ``ExDAModule``. Sources: Swin Transformer (ICCV 2021),
    section 3.2; Swin Transformer V2 (CVPR 2022), section 3.2 and 3.3; ExDA (2026) for the value.

    Args:
        window_size: (H, W) of the window, or the side of a square.

    Shape:
        x (B, N, C) -> (B, N, C), B windows of N = H*W pixels each, row by row. The index of positions (N, N), where the
        host is called with it. mask, if given, (W, N, N), added to the logits of every W windows; W divides B.

    Raises:
        ConfigError: for arguments that do not exist or do not fit each other, and for tokens.
        InputError: for anything but a non-empty floating-point (B, N, C), for another N than the window's, and for a
            mask of another shape.

    Examples:
        >>> import torch
        >>> attention = ExDAWindowAttention(60, 6, window_size=8)
        >>> attention(torch.randn(4, 64, 60)).shape
        torch.Size([4, 64, 60])
    """

    PARTS: ClassVar[tuple[str, ...]] = (
        "relative_position_bias_table",
        "logit_scale",
        "cpb_mlp",
        "relative_coords_table",
        "relative_position_index",
        "q_bias",
        "v_bias",
        "qkv",
        "proj",
    )
    """Of Swin the table, of Swin V2 the scale, the network, its coordinates and two biases; HAT's has no index."""
    OPTIONAL = frozenset(PARTS) - {"qkv", "proj"}
    TAKES_TOKENS = False

    def __init__(self, dim: int, num_heads: int, bias: bool = True, *, window_size: Any = 8, **options: Any) -> None:
        # A plain attribute, set before there is a module: ``host_tensors`` needs it.
        size = sides_of(window_size)
        if size is None:
            raise ConfigError(
                f"{type(self).__name__}(window_size={window_size!r}): expected a positive integer, or a height and a "
                f"width."
            )
        self.window_size = size
        super().__init__(dim, num_heads, bias, **{"tokens": 0, **options})

    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """See ``ExDAModule.host_layers``."""
        return {"qkv": nn.Linear(dim, 3 * dim, bias=bias, **factory), "proj": nn.Linear(dim, dim, **factory)}

    def host_tensors(self, num_heads: int, factory: dict[str, Any]) -> dict[str, Tensor]:
        """See ``ExDAModule.host_tensors``."""
        height, width = self.window_size
        table = nn.Parameter(torch.empty((2 * height - 1) * (2 * width - 1), num_heads, **factory))
        nn.init.trunc_normal_(table, std=0.02)
        index = relative_position_index(height, width).to(factory["device"])
        return {"relative_position_bias_table": table, "relative_position_index": index}

    @classmethod
    def heads_of(cls, host: nn.Module, parts: Mapping[str, str]) -> int:
        """See ``ExDAModule.heads_of``: (rows, h) of the table, (h, 1, 1) of the scale."""
        if "logit_scale" in parts:
            return super().heads_of(host, {"temperature": parts["logit_scale"]})
        table: Tensor = getattr(host, parts["relative_position_bias_table"])
        return table.shape[1]

    def forward(self, x: Tensor, *others: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """Attends within each window, (B, N, C) -> (B, N, C).

        Args:
            x: (B, N, C).
            others: what the host is called with by position: HAT's index (N, N) first, or Uformer's source of keys and
                values, which has to be None; then perhaps the mask.
            mask: (W, N, N), if it is not among the others.
        """
        index, given = self._tensor("relative_position_index"), [*others]
        if index is None and given:
            index = given.pop(0)
        if given:
            mask = given.pop()
        if any(each is not None for each in given):
            raise InputError(f"{self.own_name()}: keys and values of another map are not supported; expected None.")
        self.check_input("x", x, "BNC")
        size = self.map_size(x)
        self._check_others(x, index, mask)
        assert index is not None
        scale, cosine = self._scale()
        terms = WindowTerms(
            self._qkv, self.part("proj"), scale, cosine, self._position_bias(index), mask, self.value_terms()
        )
        self.check_dtypes(x, self.part("qkv"), terms.value, None)
        return ops.window(x, size, terms)

    def linear_value(self, x: Tensor, *others: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """See ``ExDAModule.linear_value``."""
        return to_map(self._qkv(x)[..., -self.dim :], self.map_size(x))

    def map_size(self, x: Tensor, grid: Any = None) -> tuple[int, int]:
        """(H, W) of the windows that ``x`` (B, N, C) holds.

        Raises:
            InputError: for another number of pixels than the window has.
        """
        known, pixels = window_size_of(self), x.shape[1]
        height, width = known or (math.isqrt(pixels),) * 2
        if height * width != pixels:
            expected = f"{height} x {width} = {height * width} pixels" if known else "a square number of pixels"
            raise InputError(f"{self.own_name()}: expected windows of {expected}, got x of shape {tuple(x.shape)}.")
        return height, width

    def has_bias(self) -> bool:
        """See ``ExDAModule.has_bias``."""
        biased = any(name.endswith("bias") for name, _ in self.part("qkv").named_parameters())
        return biased or self._tensor("q_bias") is not None

    def _qkv(self, x: Tensor) -> Tensor:
        packed: Tensor | tuple[Tensor, ...] = self.part("qkv")(x)
        if isinstance(packed, tuple):
            # Uformer's: q, k and v by heads, (B, h, N, c) each.
            return torch.cat([each.transpose(1, 2).flatten(2) for each in packed], dim=-1)
        q_bias, v_bias = self._tensor("q_bias"), self._tensor("v_bias")
        if q_bias is None or v_bias is None:
            return packed
        # Swin V2: keys have no bias.
        return packed + torch.cat([q_bias, torch.zeros_like(v_bias), v_bias])

    def _scale(self) -> tuple[Tensor | float, bool]:
        """Factor of the logits, a number or (h, 1, 1), and whether they are cosines."""
        learnt = self._tensor("logit_scale")
        if learnt is None:
            return self.channels_per_head**-0.5, False
        # At most 100 (Swin V2, 3.2).
        return learnt.clamp(max=math.log(100)).exp(), True

    def _position_bias(self, index: Tensor) -> Tensor:
        """(h, N, N): of Swin the table's rows, of Swin V2 ``16 sigmoid`` of what its network says of the offsets."""
        table = self._tensor("relative_position_bias_table")
        if table is None:
            found: Tensor = self.part("cpb_mlp")(self.part("relative_coords_table"))
            table = found.flatten(0, -2)
        bias = table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1)
        return bias if self._tensor("logit_scale") is None else 16 * bias.sigmoid()

    def _tensor(self, name: str) -> Tensor | None:
        """What plays the part ``name``, a parameter or a buffer; None where there is none."""
        found: Tensor | None = getattr(self, self._parts.get(name, ""), None)
        return found

    def _check_others(self, x: Tensor, index: Tensor | None, mask: Tensor | None) -> None:
        windows, pixels = x.shape[0], x.shape[1]
        if index is None or index.shape != (pixels, pixels):
            given = "none" if index is None else tuple(index.shape)
            raise InputError(f"{self.own_name()}: expected an index of positions ({pixels}, {pixels}), got {given}.")
        if mask is not None and (mask.shape[1:] != (pixels, pixels) or windows % mask.shape[0]):
            raise InputError(
                f"{self.own_name()}: expected a mask (W, {pixels}, {pixels}) with W a divisor of {windows} windows, "
                f"got {tuple(mask.shape)}."
            )


def relative_position_index(height: int, width: int) -> Tensor:
    """(N, N): for two pixels of a window, the row of the table for all that lie so to each other."""
    pixels = torch.arange(height * width)
    down, right = (side[:, None] - side[None, :] for side in (pixels // width, pixels % width))
    return (down + height - 1) * (2 * width - 1) + right + width - 1


def window_size_of(module: nn.Module) -> tuple[int, int] | None:
    """(H, W) of the window, where an attribute of an attention says it."""
    size = said_size(module)
    return None if size is None else _pair(size)


def said_size(module: nn.Module) -> Any:
    """What an attribute of an attention says of its window, a number or several; None where there is none."""
    for name in ("window_size", "win_size"):
        size = getattr(module, name, None)
        # Tuples of types: the compiler of PyTorch 2.6 does not trace ``int | tuple``, nor ``vars(module)``.
        if isinstance(size, (int, tuple, list)):
            return size
    return None


def sides_of(size: Any) -> tuple[int, int] | None:
    """(H, W) for a side or two, None for anything that is no window's size."""
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    good = len(sides) == 2 and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    return _pair(sides) if good else None


def _pair(size: int | tuple[int, ...] | list[int]) -> tuple[int, int]:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(height), int(width)
