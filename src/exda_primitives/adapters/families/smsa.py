"""Spectral-wise self-attention: S-MSA of MST and MST++, and IG-MSA of Retinexformer, which takes a second map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

from torch import Tensor, nn

from exda_primitives.patching import Family, Mismatch
from exda_primitives.patching.registry import register_own
from exda_primitives.patching.shapes import TEMPERATURE, Rule, check_plain, core, find_temperature
from exda_primitives.primitives import ExDASpectralAttention

_LINEAR = ("to_q", "to_k", "to_v", "proj")


class SMSA(Family):
    """Takes one map (B, H, W, C); q, k, v and the output by four linear layers C -> C, plus a positional branch on V.

    The four layers have equal shapes: all assignments are candidates, the official order first, and the probe decides.
    """

    name = "smsa"
    replacement = ExDASpectralAttention
    # q, k and v come from the first map, in IG-MSA, too: there the second map only scales V.
    source = 0

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Returns the assignments for a module of four linear layers C -> C, one more child and a temperature.

        Raises:
            Mismatch: for a module with the four layers that breaks another rule.
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
            # Without a parameter (..., 1, 1), a temperature, it is another attention on tokens: not even a near miss.
            return []
        if len(others) != 1:
            raise Mismatch(
                f"expected, besides four linear layers, one embedding of the position and nothing else with "
                f"parameters, found {', '.join(others) or 'none'}",
                Rule.LAYERS,
            )
        (channels,) = widths
        temperature = find_temperature(module, channels)
        check_plain(module)
        # The official code registers them in the order of _LINEAR, so the first permutation is the likeliest.
        return [
            {TEMPERATURE: temperature, "pos_emb": others[0], **dict(zip(_LINEAR, names, strict=True))}
            for names in permutations(square)
        ]

    def make_inputs(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """Returns the maps (B, C, H, W) as (B, H, W, C)."""
        return [x.movedim(1, -1).contiguous() for x in maps]

    def to_map(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Returns (B, H, W, C) as a map (B, C, H, W)."""
        return super().to_map(x).movedim(-1, 1)


class IGMSA(SMSA):
    """Takes two maps (B, H, W, C), the second of which scales V; otherwise it is S-MSA."""

    name = "igmsa"
    inputs = 2


register_own(SMSA())
register_own(IGMSA())
