"""Window attention with relative positions: Swin's (SwinIR, timm), HAT's, which is called with them, and Swin V2's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from inspect import signature

import torch
from torch import Tensor, nn

from exda_primitives.patching import Mismatch, TokenFamily
from exda_primitives.patching.registry import register_own
from exda_primitives.patching.shapes import Rule, check_no_dropout, check_plain, linear_sizes
from exda_primitives.primitives import ExDAWindowAttention
from exda_primitives.primitives.window import said_size, sides_of, window_size_of

_HIDDEN = -100.0
"""What the hosts' masks add to the logits of pixels that only the shift has made neighbours."""


class Window(TokenFamily):
    """Windows (B, H*W, C) in, perhaps an index of positions, perhaps a mask; q, k, v by one linear layer C -> 3C.

    An extension: ExDA's value where the paper does not put it.
    """

    name = "window"
    replacement = ExDAWindowAttention
    extension = True
    source = 0

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """By shape: linear layers C -> 3C and C -> C, and what says the relative positions.

        Uformer has a module of layers C -> C and C -> 2C in place of the first.
        Of Swin that is a parameter (rows, h), with or without an index (N, N) among the buffers; of Swin V2 it is a
        network of coordinates (1, rows, columns, 2), beside a scale (h, 1, 1) and two biases (C,) or none.

        Raises:
            Mismatch: for a module with these layers and positions that breaks another rule.
        """
        sizes = linear_sizes(module) | _of_uformer(module)
        channels = next((c for c, out in sizes.values() if c and out == 3 * c and (c, c) in sizes.values()), None)
        if channels is None:
            return []
        own = dict(module.named_parameters(recurse=False))
        buffers = dict(module.named_buffers(recurse=False))
        children = {name for name, child in module.named_children() if any(True for _ in child.parameters())}
        networks = children - {*sizes}
        parts = _of_swin(own) or _of_swin_v2(own, buffers, networks)
        if not parts:
            return []
        others = [*(networks - {*parts.values()}), *(own.keys() - {*parts.values()})]
        if len(sizes) != 2 or others:
            raise Mismatch(
                f"expected linear layers {channels} -> {3 * channels} and {channels} -> {channels}, relative positions "
                f"and nothing else with parameters, found {', '.join(sorted({*sizes, *others}))}",
                Rule.LAYERS,
            )
        heads = self.replacement.heads_of(module, parts)
        if channels % heads:
            raise Mismatch(
                f"its positions are of {heads} heads, which do not divide {channels} channels", Rule.OTHER_PARTS
            )
        check_no_dropout(module, sizes)
        check_plain(module)
        index = [name for name, held in buffers.items() if held.ndim == 2 and not held.is_floating_point()]
        if any(buffers[name].is_meta for name in index):
            raise Mismatch(
                f"its index of positions, {index[0]}, is on the meta device: what it computes cannot be looked at",
                Rule.OTHER_PARTS,
            )
        _check_size(module, [buffers[name].shape[0] for name in index])
        qkv, proj = sorted(sizes, key=lambda name: -sizes[name][1])
        return [{**parts, **dict(zip(("relative_position_index",), index, strict=False)), "qkv": qkv, "proj": proj}]

    def extra_inputs_of(self, module: nn.Module) -> int:
        """See ``Family``: a mask, after the index where the module has none, or Uformer's further map."""
        return len(signature(module.forward).parameters) - 1

    def only_size(self, module: nn.Module, parts: Mapping[str, str]) -> tuple[int, int] | None:
        """See ``Family``: the window's."""
        if size := window_size_of(module):
            return size
        if "relative_position_index" in parts:
            return (math.isqrt(getattr(module, parts["relative_position_index"]).shape[0]),) * 2
        # (2H - 1)(2W - 1) rows.
        return ((math.isqrt(len(getattr(module, parts["relative_position_bias_table"]))) + 1) // 2,) * 2

    def extra_arguments(
        self, attention: nn.Module, parts: Mapping[str, str], x: Tensor, generator: torch.Generator
    ) -> Sequence[Sequence[Tensor | None]]:
        """A mask for every second window, and none; after any index of positions, where the module has none itself."""
        pixels, masks = x.shape[2] * x.shape[3], 2 - x.shape[0] % 2
        hidden = torch.rand((masks, pixels, pixels), generator=generator) < 0.3
        # Nothing hides a pixel from itself.
        mask = (hidden & ~torch.eye(pixels, dtype=torch.bool)).to(x.dtype) * _HIDDEN
        if "relative_position_index" in parts:
            # Uformer's takes a source of keys and values first, of which its networks give none.
            before = [None] * (self.extra_inputs_of(attention) - 1)
            return [[*before, mask], [*before, None]]
        rows = len(getattr(attention, parts["relative_position_bias_table"]))
        index = torch.randint(rows, (pixels, pixels), generator=generator)
        return [[index, mask], [index, None]]


def _check_size(module: nn.Module, pixels: Sequence[int]) -> None:
    """Refuses an attribute that is no size of a window, or not that of the positions, which are of so many pixels."""
    size = said_size(module)
    if size is None:
        return
    sides = sides_of(size)
    if sides is None:
        raise Mismatch(f"its windows are of {size} pixels; expected a height and a width", Rule.OTHER_PARTS)
    differing = [each for each in pixels if each != math.prod(sides)]
    if differing:
        raise Mismatch(
            f"its windows are of {sides[0]} x {sides[1]} pixels, its positions of {differing[0]}", Rule.OTHER_PARTS
        )


def _of_uformer(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> (C, 3C) of children that hold linear layers C -> C and C -> 2C and nothing else."""
    found = {}
    for name, child in module.named_children():
        inside = sorted(linear_sizes(child).values())
        if len(inside) == 2 and inside == [(inside[0][0], factor * inside[0][0]) for factor in (1, 2)]:
            found[name] = inside[0][0], 3 * inside[0][0]
    return found


def _of_swin(own: Mapping[str, Tensor]) -> dict[str, str]:
    tables = [name for name, held in own.items() if held.ndim == 2]
    return {"relative_position_bias_table": tables[0]} if tables else {}


def _of_swin_v2(own: Mapping[str, Tensor], buffers: Mapping[str, Tensor], networks: set[str]) -> dict[str, str]:
    scales = [name for name, held in own.items() if held.shape[1:] == (1, 1)]
    coordinates = [name for name, held in buffers.items() if held.ndim == 4 and held.shape[-1] == 2]
    biases = [name for name, held in own.items() if held.ndim == 1]
    if len(scales) != 1 or len(coordinates) != 1 or len(networks) != 1 or len(biases) not in (0, 2):
        return {}
    found = {"logit_scale": scales[0], "cpb_mlp": next(iter(networks)), "relative_coords_table": coordinates[0]}
    return found | dict(zip(("q_bias", "v_bias"), biases, strict=False))


register_own(Window())
