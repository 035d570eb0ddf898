"""MDTA by 1x1 convolutions alone (SST's global spectral attention), and with q, k and v by layers of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from exda_primitives.patching import ConvLayout, Family, Mismatch
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDAPointwiseAttention

_QKV = ("q", "k", "v")


class GSA(Family):
    """One map in; q, k, v from a 1x1 convolution C -> 3C, or thrice C -> C and perhaps a depthwise one after each."""

    name = "gsa"
    replacement = ExDAPointwiseAttention
    packed = ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={})
    separate = ConvLayout(pointwise=dict.fromkeys((*_QKV, "project_out"), 1), depthwise={})
    with_depthwise = ConvLayout(separate.pointwise, depthwise={f"{part}_dwconv": 1 for part in _QKV})

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """By shape; every order of the layers of equal size, the likelier first.

        Raises:
            Mismatch: for four equal layers that break another rule; what has one for all but is none is MDTA's to tell.
        """
        try:
            packed = self.packed.find(module)
        except Mismatch:
            return []
        if packed:
            return [{**dict.fromkeys(_QKV, parts["qkv"]), **_without(parts, "qkv")} for parts in packed]
        try:
            return self.separate.find(module)
        except Mismatch:
            candidates = list(_in_one_order(module, self.with_depthwise.find(module)))
            if not candidates:
                raise
            return candidates


def _without(parts: Mapping[str, str], name: str) -> dict[str, str]:
    return {part: held for part, held in parts.items() if part != name}


def _in_one_order(module: nn.Module, candidates: Sequence[Mapping[str, str]]) -> Iterator[Mapping[str, str]]:
    """Those whose depthwise convolutions were registered in the order of the layers before them."""
    order = {name: i for i, (name, _) in enumerate(module.named_children())}
    for parts in candidates:
        before = sorted(_QKV, key=lambda part: order[parts[part]])
        after = sorted(_QKV, key=lambda part: order[parts[f"{part}_dwconv"]])
        if before == after:
            yield parts


register_own(GSA())
