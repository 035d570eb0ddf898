"""Finds an attention's family, which knows how to turn its inputs and output into maps (B, C, H, W)."""

from __future__ import annotations

import torch
from torch import nn

from ...errors import ConfigError
from ...patching import Family, Mismatch
from ...patching.probe import probe
from ...patching.registry import known_families
from ...primitives import ExDAModule


def family_of(attention: nn.Module) -> Family:
    """Returns the family of an attention, be it ExDA's or a host's.

    Raises:
        ConfigError: if no family fits, so that nothing tells which dimension holds the channels.
    """
    for family in known_families().values():
        if _is_of(attention, family):
            return family
    kind = type(attention).__name__
    raise ConfigError(
        f"{kind}: belongs to no known family, so which dimension holds its channels is unknown; register a Family with "
        f"replacement = {kind} by exda.register_adapter(...), or leave it out with blocks=..."
    )


def says_size(family: Family) -> bool:
    """Returns whether the shape of the family's inputs tells height and width: that of maps does, of tokens not."""
    # Tried with a map: make_inputs makes the family's inputs of it, to_map without a size must give the shape back.
    x = torch.empty(1, 8, 16, 24, device="meta")
    return family.to_map(family.make_inputs([x] * family.inputs)[family.source]).shape == x.shape


def _is_of(attention: nn.Module, family: Family) -> bool:
    if isinstance(attention, ExDAModule):
        # By the class that defines forward, which decides on the layout: a subclass may override it.
        made = next(kind for kind in type(attention).__mro__ if "forward" in vars(kind))
        return family.replacement in (made, type(attention))
    try:
        return any(probe(attention, family, parts) is None for parts in family.candidates(attention))
    except Mismatch:
        return False
