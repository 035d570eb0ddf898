"""MDTA without depthwise convolutions (SST's global spectral attention), or with separate layers for q, k and v."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from exda_primitives.patching import ConvLayout, Family, Mismatch
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDAPointwiseAttention

_QKV = ("q", "k", "v")


class GSA(Family):
    """Takes one map; q, k, v by one 1x1 convolution C -> 3C, or by three C -> C, each perhaps with a depthwise one."""

    name = "gsa"
    replacement = ExDAPointwiseAttention
    packed = ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={})
    separate = ConvLayout(pointwise=dict.fromkeys((*_QKV, "project_out"), 1), depthwise={})
    with_depthwise = ConvLayout(separate.pointwise, depthwise={f"{part}_dwconv": 1 for part in _QKV})

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """Returns the assignments that the shapes allow: every order of equal layers, the likelier first.

        Raises:
            Mismatch: for a module with four equal layers that breaks another rule. A near miss with one layer for q, k
                and v is reported by MDTA's family, not here.
        """
        try:
            packed = self.packed.find(module)
        except Mismatch:
            return []
        if packed:
            # q, k and v all name the packed layer.
            return [{**dict.fromkeys(_QKV, parts["qkv"]), **_without(parts, "qkv")} for parts in packed]
        try:
            return self.separate.find(module)
        except Mismatch:
            candidates = list(_in_one_order(module, self.with_depthwise.find(module)))
            if not candidates:
                raise
            return candidates


def _without(parts: Mapping[str, str], name: str) -> dict[str, str]:
    """Returns a copy of ``parts`` without one entry."""
    return {part: held for part, held in parts.items() if part != name}


def _in_one_order(module: nn.Module, candidates: Sequence[Mapping[str, str]]) -> Iterator[Mapping[str, str]]:
    """Yields the candidates whose depthwise convolutions were registered in the order of their q, k and v layers."""
    order = {name: i for i, (name, _) in enumerate(module.named_children())}
    for parts in candidates:
        before = sorted(_QKV, key=lambda part: order[parts[part]])
        after = sorted(_QKV, key=lambda part: order[parts[f"{part}_dwconv"]])
        if before == after:
            yield parts


register_own(GSA())
