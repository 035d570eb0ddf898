"""XCA: channel attention on tokens, timm's XCiT ``XCA`` and EdgeNeXt ``CrossCovarianceAttn``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from exda_primitives.patching import Mismatch, ParentHook, TokenFamily
from exda_primitives.patching.registry import register_own
from exda_primitives.patching.shapes import (
    PARAMETRISED,
    TEMPERATURE,
    check_no_dropout,
    check_plain,
    core,
    find_temperature,
    linear_sizes,
)
from exda_primitives.primitives import ExDAXCAttention
from exda_primitives.surgery.tracing import is_symbolic

# Tuples of types rather than unions, which torch.compile of PyTorch 2.6 cannot look into.
_PAIRS = (tuple, list)
# Where sizes are dynamic, torch.export has integers of its own.
_INTEGERS = (int, torch.SymInt)


class GridHook(ParentHook):
    """Hands the size of the map down, from what the parent is called with.

    That are two integers H and W, alone or as a pair, ``block(x, H, W)`` or ``block(x, (H, W))``, where there are two
    and no more, and otherwise the last two axes of a first argument (B, C, H, W).
    """

    def tell(self, attention: Any, arguments: tuple[Any, ...]) -> None:
        """The size if the call says it, and otherwise that it is not known: never that of an earlier call."""
        if isinstance(attention, ExDAXCAttention):
            attention.hand_down(_map_size(arguments))

    def untell(self, attention: Any) -> None:
        """The size of another call around this one, or none."""
        if isinstance(attention, ExDAXCAttention):
            attention.take_back()


def _has_scale(module: nn.Module) -> bool:
    return any(p.shape[-2:] == (1, 1) for p in module.parameters(recurse=False))


def _map_size(arguments: tuple[Any, ...]) -> tuple[int, int] | None:
    if arguments and is_symbolic(arguments[0]):
        return _symbolic_size(arguments)
    sizes = []
    for argument in arguments:
        sizes += [each for each in (argument if isinstance(argument, _PAIRS) else [argument]) if _is_integer(each)]
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    if arguments and isinstance(arguments[0], Tensor) and arguments[0].ndim == 4:
        return arguments[0].shape[2], arguments[0].shape[3]
    return None


def _symbolic_size(arguments: tuple[Any, ...]) -> tuple[Any, Any] | None:
    """Under torch.fx, where nothing tells a number: two more arguments or a pair are H and W; alone, x is a map."""
    x, *others = arguments
    if not others:
        return x.shape[2], x.shape[3]
    pair = others[0] if len(others) == 1 else others
    return (pair[0], pair[1]) if isinstance(pair, _PAIRS) and len(pair) == 2 else None


def _is_integer(given: Any) -> bool:
    if isinstance(given, Tensor) and torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        # What the sizes of tensors are there.
        return given.ndim == 0 and given.dtype is torch.int64
    return isinstance(given, _INTEGERS) and not isinstance(given, bool)


class XCA(TokenFamily):
    """One sequence (B, H*W, C) in; q, k, v from one linear layer C -> 3C."""

    name = "xca"
    replacement = ExDAXCAttention
    parent_hook = GridHook

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """By shape: a linear layer C -> 3C, one C -> C, a temperature, and no more, without dropout.

        Raises:
            Mismatch: for a module with both layers and a parameter (..., 1, 1) that breaks another rule.
        """
        cores = {name: core(child) for name, child in module.named_children()}
        sizes = linear_sizes(module)
        # A lazy one has 0 until its first call.
        channels = next((c for c, out in sizes.values() if c and out == 3 * c and (c, c) in sizes.values()), None)
        # Without anything like a temperature it is any other attention on tokens.
        if channels is None or not (parametrize.is_parametrized(module) or _has_scale(module)):
            return []
        others = [
            f"{name} ({type(child).__name__})"
            for name, child in module.named_children()
            if name not in sizes and name != PARAMETRISED and next(child.parameters(), None) is not None
        ]
        if len(sizes) != 2 or others:
            found = ", ".join([f"{name} {c} -> {out}" for name, (c, out) in sizes.items()] + others)
            raise Mismatch(
                f"expected the linear layers {channels} -> {3 * channels} and {channels} -> {channels} and nothing "
                f"else with parameters, found {found}",
                1,
            )
        temperature = find_temperature(module, channels)
        check_no_dropout(module, sizes)
        packed = [name for name in sizes if next(cores[name].parameters(), None) is None]
        if packed:
            kinds = ", ".join(f"{name} ({type(cores[name]).__name__})" for name in packed)
            raise Mismatch(f"{kinds}: quantised; patch before that is done", 6)
        check_plain(module)
        proj, qkv = sorted(sizes, key=lambda name: sizes[name][1])
        return [{TEMPERATURE: temperature, "qkv": qkv, "proj": proj}]

    def known_of(self, height: int, width: int) -> Mapping[str, Any]:
        """The grid."""
        return {"grid": (height, width)}


register_own(XCA())
