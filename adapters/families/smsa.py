"""Spectral-wise self-attention: MST's and MST++'s S-MSA, and Retinexformer's IG-MSA, which takes a second map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

from torch import Tensor, nn

from exda_primitives.patching import Family, Mismatch
from exda_primitives.patching.registry import register_own
from exda_primitives.patching.shapes import TEMPERATURE, check_plain, core, find_temperature
from exda_primitives.primitives import ExDASpectralAttention

_LINEAR = ("to_q", "to_k", "to_v", "proj")


class SMSA(Family):
    """One map (B, H, W, C) in; q, k, v and the output by four linear layers C -> C, and an embedding of V beside them.

    Shapes do not tell the four apart: all assignments are candidates, the official order first, and the probe decides.
    """

    name = "smsa"
    replacement = ExDASpectralAttention
    # Also of the two maps of IG-MSA.
    source = 0

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """By shape: four linear layers C -> C, one more child with parameters, a temperature, and no more.

        Raises:
            Mismatch: for a module with the layers that breaks another rule.
        """
        layers = {name: core(child) for name, child in module.named_children()}
        square = [
            name
            for name, layer in layers.items()
            if isinstance(layer, nn.Linear) and layer.in_features == layer.out_features
        ]
        widths = {layer.in_features for layer in layers.values() if isinstance(layer, nn.Linear)}
        if len(square) != len(_LINEAR) or len(widths) != 1:
            return []
        others = [
            name
            for name, child in module.named_children()
            if name not in square and next(child.parameters(), None) is not None
        ]
        own = [tuple(parameter.shape[-2:]) for parameter in module.parameters(recurse=False)]
        if (1, 1) not in own:
            # Any other attention on tokens.
            return []
        if len(others) != 1:
            raise Mismatch(
                f"expected, besides four linear layers, one embedding of the position and nothing else with "
                f"parameters, found {', '.join(others) or 'none'}",
                1,
            )
        (channels,) = widths
        temperature = find_temperature(module, channels)
        check_plain(module)
        # Registered in this order, by the official code.
        return [
            {TEMPERATURE: temperature, "pos_emb": others[0], **dict(zip(_LINEAR, names, strict=True))}
            for names in permutations(square)
        ]

    def arguments(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """Maps (B, C, H, W) with their channels last."""
        return [x.movedim(1, -1).contiguous() for x in maps]

    def to_map(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, H, W, C) as a map (B, C, H, W)."""
        return super().to_map(x).movedim(-1, 1)


class IGMSA(SMSA):
    """Two maps (B, H, W, C) in, the second of which scales V; all else as S-MSA."""

    name = "igmsa"
    inputs = 2


register_own(SMSA())
register_own(IGMSA())
