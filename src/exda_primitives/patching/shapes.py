"""Shape rules: find an attention's parts by what they are, never by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice, permutations, product
from typing import ClassVar, TypeGuard

from torch import nn
from torch.nn.utils import parametrize

from .adapter import Family, Mismatch

TEMPERATURE = "temperature"
PARAMETRISED = "parametrizations"
"""Child in which PyTorch keeps a module's parametrised tensors."""

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class Rule(IntEnum):
    """What the families check, in this order; the value is the number of rules before it, for ``Mismatch.rules``."""

    DIMENSIONS = 0
    LAYERS = 1
    OTHER_PARTS = 2
    TEMPERATURE = 3
    BUFFERS = 4
    VECTOR_LAYERS = 5
    NO_DROPOUT = 5
    PLAIN_WEIGHTS = 6


@dataclass(frozen=True)
class ConvLayout:
    """Channel attention made of 1x1 and depthwise convolutions of C channels.

    The rules look at each child's ``core``; the replacement uses the child itself, with whatever is around its core.

    Attributes:
        pointwise: part -> factor f of a direct child whose core is a 1x1 convolution C -> f * C.
        depthwise: part -> factor f of a direct child whose core is a depthwise convolution of f * C channels.
    """

    pointwise: Mapping[str, int]
    depthwise: Mapping[str, int]

    def find(self, module: nn.Module, ignore: Collection[str] = ()) -> list[dict[str, str]]:
        """Returns all assignments of the parts and ``temperature`` to attributes of ``module``; empty if none is alike.

        A module is looked at if it has 1x1 convolutions of all the sizes in ``pointwise``. There are three rules: its
        1x1 convolutions are two-dimensional and exactly those of ``pointwise``; every other child with parameters is
        one of ``depthwise``; it has one own parameter (..., h, 1, 1) with C divisible by h, no other parameter and no
        buffer. A module that breaks more than one rule is a different module, not a near miss.

        Args:
            module: the module.
            ignore: names of children that the caller checks itself.

        Raises:
            Mismatch: for a module that breaks one rule, and for weights that cannot be probed.
        """
        children = {name: child for name, child in module.named_children() if name not in ignore}
        cores = {name: core(child) for name, child in children.items()}
        convs = {name: conv for name, conv in cores.items() if _is_pointwise(conv)}
        wanted = Counter(self.pointwise.values())
        # C: the smallest number of input channels at which convolutions of all the factors exist.
        channels = next((c for c in _inputs(convs) if _factors(convs, c) >= wanted), None)
        if channels is None:
            return []
        others = {
            name: child
            for name, child in children.items()
            if name not in convs and name != PARAMETRISED and next(child.parameters(), None) is not None
        }
        found: list[list[dict[str, str]]] = []
        broken: list[Mismatch] = []
        # All three are tried, to count how many are broken.
        rules: tuple[Callable[[], list[dict[str, str]]], ...] = (
            lambda: [{TEMPERATURE: find_temperature(module, channels)}],
            lambda: _assignments(self.pointwise, self._pointwise_factors(convs, channels, wanted)),
            lambda: _assignments(self.depthwise, self._depthwise_factors(others, channels)),
        )
        for rule in rules:
            try:
                found.append(rule())
            except Mismatch as mismatch:
                broken.append(mismatch)
        if len(broken) > 1:
            return []
        if broken:
            raise broken[0]
        check_plain(module)
        return [{**temperature, **first, **second} for temperature, first, second in product(*found)]

    def _pointwise_factors(self, convs: Mapping[str, Conv], channels: int, wanted: Counter[int]) -> dict[str, int]:
        """Returns name -> f of the 1x1 convolutions C -> f * C; raises Mismatch if they are not those wanted."""
        solid = [name for name, conv in convs.items() if not isinstance(conv, nn.Conv2d)]
        if solid:
            kind = type(convs[solid[0]]).__name__
            raise Mismatch(f"its projections ({', '.join(solid)}) are {kind}, not Conv2d", Rule.DIMENSIONS)
        if any(conv.in_channels != channels for conv in convs.values()) or _factors(convs, channels) != wanted:
            found = ", ".join(f"{name} {c.in_channels} -> {c.out_channels}" for name, c in convs.items())
            expected = " and ".join(f"{channels} -> {f * channels}" for f in sorted(wanted.elements()))
            raise Mismatch(f"expected the 1x1 convolutions {expected} and no other, found {found}", Rule.LAYERS)
        return {name: conv.out_channels // channels for name, conv in convs.items()}

    def _depthwise_factors(self, others: dict[str, nn.Module], channels: int) -> dict[str, int]:
        """Returns name -> f of the depthwise convolutions of f * C channels; raises Mismatch for any other child."""
        found = {name: _depthwise_channels(child) for name, child in others.items()}
        bad = [name for name, width in found.items() if width is None or width % channels]
        factors = Counter(width // channels for name, width in found.items() if width is not None and name not in bad)
        if bad or factors != Counter(self.depthwise.values()):
            widths = " and ".join(f"{f * channels}" for f in self.depthwise.values())
            expected = f"one depthwise convolution of {widths} channels and nothing else" if widths else "nothing"
            held = ", ".join(f"{name} ({type(child).__name__})" for name, child in others.items()) or "none"
            raise Mismatch(
                f"expected, besides the 1x1 convolutions, {expected} with parameters, found {held}", Rule.OTHER_PARTS
            )
        return {name: width // channels for name, width in found.items() if width is not None}


class ConvFamily(Family):
    """A family whose attention is made of 1x1 and depthwise convolutions, described by ``layout``."""

    layout: ClassVar[ConvLayout]

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Finds the parts by shape; see ``ConvLayout.find``."""
        return self.layout.find(module)


def _is_pointwise(module: nn.Module) -> TypeGuard[Conv]:
    return (
        isinstance(module, Conv)
        and set(module.kernel_size) == {1}
        and set(module.stride) == {1}
        and module.groups == 1
        # A lazy convolution has 0 channels until its first call.
        and module.in_channels > 0
        and module.padding in ((0,), (0, 0), (0, 0, 0), "valid", "same")
    )


def _inputs(convs: Mapping[str, Conv]) -> list[int]:
    return sorted({conv.in_channels for conv in convs.values()})


def _factors(convs: Mapping[str, Conv], channels: int) -> Counter[int]:
    """Returns f of every convolution ``channels`` -> f * ``channels``, with multiplicity."""
    sizes = [c.out_channels for c in convs.values() if c.in_channels == channels]
    return Counter(size // channels for size in sizes if size % channels == 0)


def _depthwise_channels(child: nn.Module) -> int | None:
    """Returns the channels of a depthwise convolution of any kernel size; None for another child."""
    conv = core(child)
    if not isinstance(conv, Conv):
        return None
    return conv.in_channels if conv.groups == conv.in_channels == conv.out_channels else None


def core(child: nn.Module) -> nn.Module:
    """Returns the layer that sets a child's input and output channels: the child itself or the layer that it wraps.

    That is the ``base_layer`` of an adapter (LoRA and its kin), or the only layer inside the child.
    """
    inner = getattr(child, "base_layer", None)
    if isinstance(inner, nn.Module):
        return core(inner)
    # Two tell that it is not the only one: a child may be half a network.
    layers = [*islice(_layers(child), 2)]
    return layers[0] if len(layers) == 1 else child


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the outermost modules that are convolutions or linear layers, or have parameters of their own."""
    if isinstance(module, Conv | nn.Linear) or any(True for _ in module.parameters(recurse=False)):
        yield module
        return
    for child in module.children():
        yield from _layers(child)


def linear_sizes(module: nn.Module) -> dict[str, tuple[int, int]]:
    """What the linear layers of any kind among the children take and give, by name."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, child in module.named_children():
        taken, given = (getattr(core(child), side, None) for side in ("in_features", "out_features"))
        if isinstance(taken, int) and isinstance(given, int):
            sizes[name] = taken, given
    return sizes


def check_no_dropout(module: nn.Module, layers: Collection[str]) -> None:
    """Refuses an attention that drops values outside of these ``layers``, which are called as they are.

    Raises:
        Mismatch: for a part that drops any.
    """
    dropping = [
        f"{name}, p={part.p:g}"
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 and name.partition(".")[0] not in layers
    ]
    if dropping:
        raise Mismatch(
            f"it drops values at random in training ({'; '.join(dropping)}), which its replacement does not; set p "
            f"to 0 to have it replaced",
            Rule.NO_DROPOUT,
        )


def check_plain(module: nn.Module) -> None:
    """Refuses weights that cannot be filled with random numbers, which the probe has to do.

    Raises:
        Mismatch: for quantised or sharded weights.
    """
    for name, parameter in module.named_parameters():
        # The method by which PyTorch takes tensor subclasses that wrap other tensors apart.
        if hasattr(type(parameter), "__tensor_flatten__"):
            kind = type(parameter).__name__
            raise Mismatch(f"{name} is quantised or sharded ({kind}); patch before that is done", Rule.PLAIN_WEIGHTS)


def find_temperature(module: nn.Module, channels: int) -> str:
    """Returns the name of the module's only own parameter, (..., h, 1, 1) with ``channels`` divisible by h.

    Raises:
        Mismatch: if it has none, several, or one of another shape; if it has buffers outside of its layers; and if it
            is parametrised.
    """
    if parametrize.is_parametrized(module):
        names = ", ".join(name for name, _ in module.get_submodule(PARAMETRISED).named_children())
        raise Mismatch(f"{names} is parametrised; patch before that is done", Rule.TEMPERATURE)
    own = dict(module.named_parameters(recurse=False))
    if len(own) != 1:
        held = ", ".join(f"{name} {tuple(p.shape)}" for name, p in own.items()) or "none"
        raise Mismatch(f"expected one own parameter, the temperature (heads, 1, 1), found {held}", Rule.TEMPERATURE)
    ((name, temperature),) = own.items()
    shape = tuple(temperature.shape)
    heads = shape[-3] if len(shape) >= 3 else 0
    if len(shape) < 3 or shape[-2:] != (1, 1) or temperature.numel() != heads or channels % heads:
        raise Mismatch(
            f"expected a temperature (heads, 1, 1) with {channels} channels divisible by heads, found {name} {shape}",
            Rule.TEMPERATURE,
        )
    # Buffers inside a layer are used by its call: the vectors of a spectral norm, the mask of a pruned weight.
    layers = {key for key, child in module.named_children() if isinstance(core(child), Conv | nn.Linear)}
    buffers = [key for key, _ in module.named_buffers() if key.partition(".")[0] not in layers]
    if buffers:
        raise Mismatch(f"it holds buffers ({', '.join(buffers)}), which this attention has no use for", Rule.BUFFERS)
    return name


def _assignments(parts: Mapping[str, int], found: Mapping[str, int]) -> list[dict[str, str]]:
    """Returns every way to assign the parts to found names of equal factor; the one in the names' order comes first."""
    return [
        dict(zip(parts, names, strict=True))
        for names in permutations(found)
        if all(found[name] == factor for name, factor in zip(names, parts.values(), strict=True))
    ]
