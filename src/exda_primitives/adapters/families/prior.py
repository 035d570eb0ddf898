"""MDTA with a second argument: a prior vector (DiffIR, Reti-Diff, HI-Diff) or a mask (MaskDCPT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import cast

import torch
from torch import Tensor, nn

from exda_primitives.patching import ConvLayout, Family, Mismatch
from exda_primitives.patching.registry import register_own
from exda_primitives.patching.shapes import Rule, core
from exda_primitives.primitives import ExDAMaskedAttention, ExDAPriorAttention
from exda_primitives.primitives.layers import width_of
from exda_primitives.surgery.copies import detached, isolated_global_state

from .mdta import MDTA


class Prior(Family):
    """Takes one map and a vector (B, P), from which one or two linear layers compute the map's scale and shift.

    If the vector is optional, the layers may be missing: in HI-Diff, only one level is ever given a vector.
    """

    name = "prior"
    replacement = ExDAPriorAttention
    extra_inputs = 1
    source = 0
    layout: ConvLayout = MDTA.layout

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Returns the assignments that the shapes allow.

        A module must have the parts of MDTA, and one linear layer P -> 2C or P -> C, or two P -> C (either may be the
        scale's).

        Raises:
            Mismatch: for a module with the parts of MDTA and a linear layer that breaks another rule.
        """
        second = _second_argument(module)
        if second is None:
            return []
        cores = {name: core(child) for name, child in module.named_children()}
        linear = {name: layer for name, layer in cores.items() if isinstance(layer, nn.Linear)}
        found = self.layout.find(module, ignore=linear)
        if not found:
            return []
        channels = width_of(module.get_submodule(found[0]["project_out"]))
        if not linear:
            return found if second.default is None and not _uses_vector(module, channels) else []
        names, sizes = [*linear], [(layer.in_features, layer.out_features) for layer in linear.values()]
        if len(names) == 1 and sizes[0][1] in (channels, 2 * channels):
            assigned = [(names[0], names[0])]
        elif len(names) == 2 and sizes[0] == sizes[1] and sizes[0][1] == channels:
            assigned = [(names[0], names[1]), (names[1], names[0])]
        else:
            held = ", ".join(f"{name} {taken} -> {given}" for name, (taken, given) in zip(names, sizes, strict=True))
            raise Mismatch(
                f"expected a linear layer P -> {2 * channels} or P -> {channels}, or two of the latter, found {held}",
                Rule.VECTOR_LAYERS,
            )
        return [{**parts, "scale": scale, "shift": shift} for scale, shift in assigned for parts in found]

    def extra_arguments(
        self, attention: nn.Module, parts: Mapping[str, str], x: Tensor, generator: torch.Generator
    ) -> Sequence[Sequence[Tensor | None]]:
        """Returns a vector (B, P), and None if it is optional."""
        ways = _call_without_second(attention)
        if "scale" in parts:
            layer = core(attention.get_submodule(parts["scale"]))
            shape = x.shape[0], cast(nn.Linear, layer).in_features
            ways.insert(0, [torch.randn(shape, generator=generator, dtype=x.dtype)])
        return ways


class Masked(Family):
    """Takes one map and a mask, of which each entry multiplies q, k and v in a rectangle of pixels."""

    name = "masked"
    replacement = ExDAMaskedAttention
    extra_inputs = 1
    source = 0
    layout: ConvLayout = MDTA.layout

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Returns the assignments of MDTA's parts, for a module with two arguments; the probe decides on the second."""
        return [] if _second_argument(module) is None else self.layout.find(module)

    def extra_arguments(
        self, attention: nn.Module, parts: Mapping[str, str], x: Tensor, generator: torch.Generator
    ) -> Sequence[Sequence[Tensor | None]]:
        """Returns a mask (B, 1, H, W) of zeros and ones, with even sides halved, and None if it is optional."""
        height, width = (side if side % 2 else side // 2 for side in x.shape[2:])
        mask = torch.rand((x.shape[0], 1, height, width), generator=generator, dtype=x.dtype) < 0.6
        return [[mask.to(x.dtype)], *_call_without_second(attention)]


def _second_argument(module: nn.Module) -> Parameter | None:
    """Returns the second parameter of a forward that has exactly two, else None."""
    try:
        arguments = [*signature(module.forward).parameters.values()]
    except (TypeError, ValueError):
        # A scripted module's forward has no signature.
        return None
    return arguments[1] if len(arguments) == 2 else None


def _call_without_second(attention: nn.Module) -> list[list[Tensor | None]]:
    """Returns ``[[None]]``, a call without the second argument, if that is optional, else no call."""
    second = _second_argument(attention)
    return [[None]] if second is not None and second.default is None else []


def _uses_vector(module: nn.Module, channels: int) -> bool:
    """Returns whether a module uses a vector that it is given as second argument; finds out by calling a copy."""
    with isolated_global_state():
        try:
            (copy,) = detached((module,), torch.float32)
            copy(torch.ones(1, channels, 8, 8), torch.ones(1, channels))
        except AttributeError:
            # The forward asks for a layer that the module does not have (HI-Diff's levels without a prior).
            return False
        except Exception:
            return True
    return True


register_own(Prior())
register_own(Masked())
