"""XCA, channel attention on tokens: timm's ``XCA`` (XCiT) and ``CrossCovarianceAttn`` (EdgeNeXt)."""

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
    Rule,
    check_no_dropout,
    check_plain,
    core,
    find_temperature,
    linear_sizes,
)
from exda_primitives.primitives import ExDAXCAttention
from exda_primitives.surgery.tracing import is_symbolic

# For isinstance. Tuples of types instead of unions, because torch.compile of PyTorch 2.6 cannot trace unions.
_PAIRS = (tuple, list)
# With dynamic sizes, torch.export passes SymInt.
_INTEGERS = (int, torch.SymInt)


class GridHook(ParentHook):
    """Passes the map's size (H, W) from the parent's call to the attention.

    If the call has exactly two integers, ``block(x, H, W)`` or ``block(x, (H, W))``, these are the size. Otherwise it
    is that of a first argument (B, C, H, W).
    """

    def before_call(self, attention: Any, arguments: tuple[Any, ...]) -> None:
        """Passes the size, or None if the call does not say it, so that the size of an earlier call is never used."""
        if isinstance(attention, ExDAXCAttention):
            attention.push_grid(_map_size(arguments))

    def after_call(self, attention: Any) -> None:
        """Restores the size of an enclosing call, or none."""
        if isinstance(attention, ExDAXCAttention):
            attention.pop_grid()


def _has_scale(module: nn.Module) -> bool:
    """Returns whether the module itself has a parameter (..., 1, 1), as a temperature is."""
    return any(p.shape[-2:] == (1, 1) for p in module.parameters(recurse=False))


def _map_size(arguments: tuple[Any, ...]) -> tuple[int, int] | None:
    """Returns (H, W) as `GridHook` describes, or None."""
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
    """Returns (H, W) under torch.fx, whose proxies do not reveal which arguments are integers.

    Two arguments after x, or a pair, are taken for H and W; if there are none, x is taken for a map (B, C, H, W).
    """
    x, *others = arguments
    if not others:
        return x.shape[2], x.shape[3]
    pair = others[0] if len(others) == 1 else others
    return (pair[0], pair[1]) if isinstance(pair, _PAIRS) and len(pair) == 2 else None


def _is_integer(given: Any) -> bool:
    if isinstance(given, Tensor) and torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        # While torch.jit traces, the sizes of tensors are tensors themselves.
        return given.ndim == 0 and given.dtype is torch.int64
    return isinstance(given, _INTEGERS) and not isinstance(given, bool)


class XCA(TokenFamily):
    """Takes one sequence (B, H*W, C); q, k, v by one linear layer C -> 3C."""

    name = "xca"
    replacement = ExDAXCAttention
    parent_hook = GridHook

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Returns the assignment for a module of linear layers C -> 3C and C -> C and a temperature, without dropout.

        Raises:
            Mismatch: for a module with both layers and a parameter (..., 1, 1) that breaks another rule.
        """
        cores = {name: core(child) for name, child in module.named_children()}
        sizes = linear_sizes(module)
        # A lazy layer has 0 input features until its first call.
        channels = next((c for c, out in sizes.values() if c and out == 3 * c and (c, c) in sizes.values()), None)
        # Without anything like a temperature it is another attention on tokens: not even a near miss. A parametrised
        # module may have its temperature among the parametrisations; find_temperature refuses it with the reason.
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
                Rule.LAYERS,
            )
        temperature = find_temperature(module, channels)
        check_no_dropout(module, sizes)
        packed = [name for name in sizes if next(cores[name].parameters(), None) is None]
        if packed:
            kinds = ", ".join(f"{name} ({type(cores[name]).__name__})" for name in packed)
            raise Mismatch(f"{kinds}: quantised; patch before that is done", Rule.PLAIN_WEIGHTS)
        check_plain(module)
        proj, qkv = sorted(sizes, key=lambda name: sizes[name][1])
        return [{TEMPERATURE: temperature, "qkv": qkv, "proj": proj}]

    def forward_kwargs(self, height: int, width: int) -> Mapping[str, Any]:
        """Returns the size as the replacement's ``grid``."""
        return {"grid": (height, width)}


register_own(XCA())
