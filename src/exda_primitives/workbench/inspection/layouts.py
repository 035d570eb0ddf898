"""How the inputs and the output of an attention lie: its family's word, which makes maps (B, C, H, W) of them."""

from __future__ import annotations

import torch
from torch import nn

from ...errors import ConfigError
from ...patching import Family, Mismatch
from ...patching.probe import probe
from ...patching.registry import known_families
from ...primitives import ExDAModule


def family_of(attention: nn.Module) -> Family:
    """The family that an attention is of, ExDA's or a host's.

    Raises:
        ConfigError: for one of no family: nothing says where its channels are.
    """
    for family in known_families().values():
        if _is_of(attention, family):
            return family
    kind = type(attention).__name__
    raise ConfigError(
        f"{kind}: is of no family, so that nothing says where its channels are; exda.register_adapter(...) a Family "
        f"with replacement = {kind}, or leave it out with blocks=..."
    )


def says_size(family: Family) -> bool:
    """Whether the shape of what the family's attentions take says height and width, as that of tokens does not."""
    x = torch.empty(1, 8, 16, 24, device="meta")
    return family.to_map(family.arguments([x] * family.inputs)[family.source]).shape == x.shape


def _is_of(attention: nn.Module, family: Family) -> bool:
    if isinstance(attention, ExDAModule):
        # A subclass with a forward of its own may take anything.
        made = next(kind for kind in type(attention).__mro__ if "forward" in vars(kind))
        return family.replacement in (made, type(attention))
    try:
        return any(probe(attention, family, parts) is None for parts in family.candidates(attention))
    except Mismatch:
        return False
