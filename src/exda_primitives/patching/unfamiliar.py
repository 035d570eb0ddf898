"""Finds channel attention that no family knows and reports it with a reason: no report means that there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..surgery.copies import detached, isolated_global_state, random_maps
from .shapes import Conv, core
from .softmaxes import Call, Size, call, only_size

# (H, W) of two maps. Windows of 8 pixels fit into both; heights, widths and numbers of pixels differ.
_SIZES = ((8, 24), (16, 8))
# A module with more parts is a network, not an attention. The largest attention that was seen has 86.
_MOST_MODULES = 96
_ANY = (24, 24)
"""Channels before and after a module without layers, which takes any number."""
_LAYOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mdta": lambda x: x,
    "xca": lambda x: x.flatten(2).mT.contiguous(),
    "smsa": lambda x: x.movedim(1, -1).contiguous(),
}
"""Family -> function that turns a map (B, C, H, W) into the input of the family's attention."""


class _Seen(NamedTuple):
    """A softmax over channels: the family in whose layout the input was, and the softmax's size.

    ``only`` is (H, W) for a module that takes only maps of this size, else None.
    """

    family: str
    channels: int
    only: Size | None = None

    def __str__(self) -> str:
        matrices = f"{self.channels} x {self.channels}"
        if self.only is None:
            return f"it takes a softmax over channels, {matrices}"
        height, width = self.only
        return f"it takes only maps of {height} x {width} pixels, and a softmax that may be over channels, {matrices}"


def unfamiliar(module: nn.Module) -> tuple[str, str] | None:
    """Returns the closest family for a module with channel attention, and the reason why it is not that; else None.

    A module counts as channel attention if it takes a softmax of a square matrix whose size divides the channels and
    does not change with the map's size; if the module accepts only one size of maps, the latter cannot be checked and
    is assumed. A module with a temperature counts, too, if it has four layers of equal size, or if it has a softmax and
    accepts neither maps nor tokens, so that the softmax cannot be observed; its layers' weights may be arguments.
    """
    layers = {name: layer for name, child in module.named_children() if (layer := _projection(child)) is not None}
    names_softmax = _names_softmax(module)
    if not layers and not names_softmax:
        return None
    # A temperature has one entry per head; as many as there are channels, (1, C, 1, 1), are a branch's scale.
    most = max((taken for taken, _ in map(_widths, layers.values())), default=0)
    own = [*module.parameters(recurse=False)]
    # Where all weights may be arguments, the channels are unknown, and only the usual form, (heads, 1, 1), counts.
    bare = len(own) == len([*module.parameters()])
    temperature = any(
        p.ndim >= 3 and p.numel() == p.shape[-3] and (most > p.numel() or (bare and p.ndim == 3)) for p in own
    )
    # Of fewer dimensions, it may also be the weight of a branch, as in attention over pixels.
    perhaps = any(p.ndim and most > p.numel() == max(p.shape) for p in own)
    seen, called, others = _channel_softmax(module) if names_softmax else (None, True, False)
    if seen is not None:
        what = str(seen)
    elif _four_equal(layers) and (temperature or (perhaps and not others)):
        what = "it has a temperature and four equal layers"
    elif temperature and not called:
        what = "it has a temperature and a softmax, which cannot be seen: it takes no single map or sequence"
    else:
        return None
    convolutional = any(isinstance(layer, Conv) for layer in layers.values())
    family = seen.family if seen else "mdta" if convolutional or not layers else "xca"
    missing = "" if temperature else " and no temperature (heads, 1, 1)"
    return (
        family,
        f"{what}, but has not the parts of an attention that is known here; found {_held(module, layers)}{missing}",
    )


def _held(module: nn.Module, layers: Mapping[str, Any]) -> str:
    own = [f"{name} {tuple(parameter.shape)}" for name, parameter in module.named_parameters(recurse=False)]
    others = [
        f"{name} ({type(child).__name__})"
        for name, child in module.named_children()
        if name not in layers and next(child.parameters(), None) is not None
    ]
    return ", ".join([*own, *(_described(name, layer) for name, layer in layers.items()), *others])


def _projection(child: nn.Module) -> nn.Module | None:
    """Returns the linear layer or 1x1 convolution at a child's core; None if there is none."""
    layer = core(child)
    pointwise = isinstance(layer, Conv) and set(layer.kernel_size) == {1}
    return layer if pointwise or isinstance(layer, nn.Linear) else None


def _widths(layer: Any) -> tuple[int, int]:
    return (
        (layer.in_features, layer.out_features)
        if isinstance(layer, nn.Linear)
        else (layer.in_channels, layer.out_channels)
    )


def _described(name: str, layer: Any) -> str:
    taken, given = _widths(layer)
    groups = getattr(layer, "groups", 1)
    return f"{name} {taken} -> {given}" + (f" in {groups} groups" if groups > 1 else "")


def _four_equal(layers: Mapping[str, Any]) -> bool:
    squares = [taken for taken, given in map(_widths, layers.values()) if taken == given]
    return any(squares.count(width) >= 4 for width in squares)


def _names_softmax(module: nn.Module) -> bool:
    """Whether a softmax is named by the code of the module, or of a child without parameters, or of what these call."""
    # Children with parameters are asked themselves.
    own = [each for child in module.children() if next(child.parameters(), None) is None for each in child.modules()]
    if any(isinstance(each, nn.Softmax | nn.Softmax2d) for each in own):
        return True
    return any(_says_softmax(name) for each in _functions({type(each) for each in (module, *own)}) for name in each)


def _functions(kinds: set[type]) -> Iterator[Iterator[str]]:
    """Yields the names in each function that these classes hold, or that such a function calls, directly or not."""
    known = {
        held
        for kind in {base for kind in kinds for base in kind.__mro__ if not base.__module__.startswith("torch.")}
        for held in vars(kind).values()
        if isinstance(held, FunctionType)
    }
    left = [*known]
    while left:
        function = left.pop()
        yield _names(function.__code__)
        for name in _names(function.__code__):
            called = function.__globals__.get(name)
            if isinstance(called, FunctionType) and called not in known and not called.__module__.startswith("torch."):
                known.add(called)
                left.append(called)


def _says_softmax(name: str) -> bool:
    return "softmax" in name.lower() or name == "scaled_dot_product_attention"


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class _Softmaxes(NamedTuple):
    """The softmax over channels that a module takes, if any; whether any call returned; whether it takes others."""

    of_channels: _Seen | None
    called: bool = True
    others: bool = False


def _channel_softmax(module: nn.Module) -> _Softmaxes:
    """Runs a copy of a module with maps of all widths that it may take."""
    if sum(1 for _ in module.modules()) > _MOST_MODULES:
        return _Softmaxes(None)
    widths = [_widths(layer) for child in module.children() if isinstance(layer := core(child), Conv | nn.Linear)]
    # What the first layer takes, the module takes, mostly; it may be inside of a child with several layers.
    first_layer = next((_widths(each) for each in module.modules() if isinstance(each, Conv | nn.Linear)), _ANY)
    entered = dict.fromkeys(taken for taken, _ in (*widths, first_layer) if taken)
    widths = widths or [first_layer]
    maps = _maps_taken(module)
    called = False
    generator = torch.Generator().manual_seed(0)
    with isolated_global_state():
        try:
            (copy,) = detached((module,), torch.float32)
        except Exception:
            return _Softmaxes(None, called=False)
        failed: list[tuple[int, str, Callable[[Size], Call]]] = []
        softmaxes = False
        for family, laid_out in _LAYOUTS.items():
            for channels in entered:
                of_size: Callable[[Size], Call] = partial(_called, copy, maps, laid_out, channels, generator)
                first = of_size(_SIZES[0])
                called, softmaxes = called or first.returned, softmaxes or bool(first.softmaxes)
                if not first.returned:
                    failed.append((first.operations, family, of_size))
                if found := _of_channels(first.softmaxes, widths):
                    # The larger map only where it can tell channels from pixels: attention over these costs most.
                    again = of_size(_SIZES[1]).softmaxes
                    for shape in found:
                        if shape in again:
                            return _Softmaxes(_Seen(family, shape[-1]))
        if failed and not called and not softmaxes:
            # In the layout that it gets furthest with, it may take maps of another size.
            _, family, furthest = max(failed, key=lambda each: each[0])
            if only := only_size(furthest, _SIZES[0]):
                size, result = only
                # As large as the map has pixels, it is rather over these: windows of one size, for instance.
                found = [each for each in _of_channels(result.softmaxes, widths) if each[-1] != size[0] * size[1]]
                if found:
                    return _Softmaxes(_Seen(family, max(shape[-1] for shape in found), size))
    return _Softmaxes(None, called, softmaxes)


def _maps_taken(module: nn.Module) -> int:
    """Returns 2 for a module whose forward takes two arguments without defaults, else 1."""
    try:
        arguments = signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        # A scripted module's forward has no signature.
        return 1
    return 2 if sum(each.default is Parameter.empty for each in arguments) == 2 else 1


def _called(
    module: nn.Module,
    count: int,
    laid_out: Callable[[Tensor], Tensor],
    channels: int,
    generator: torch.Generator,
    size: Size,
) -> Call:
    """Calls a module with random maps of a size, in one layout."""
    maps = random_maps(count, (1, channels, *size), torch.float32, generator)
    return call(module, [laid_out(x) for x in maps])


def _of_channels(shapes: Sequence[tuple[int, ...]], widths: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
    """Returns the shapes of square matrices whose size divides the channels before or after a layer."""
    return [
        shape
        for shape in shapes
        if len(shape) >= 3
        and shape[-1] == shape[-2] > 1
        and any(width % shape[-1] == 0 for pair in widths for width in pair)
    ]
