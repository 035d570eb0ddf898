"""MDTA: Restormer's transposed attention, under whatever name and attribute names it goes.

Restormer, PromptIR, AdaIR, AMIR ``Attention``; X-Restormer ``ChannelAttention``; KBNet ``TransAttention``; OneRestore
``Self_Attention``; MoCE-IR's encoder; and many more: see ``ExDAAttention`` for what it computes.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from exda_primitives.patching import ConvLayout, Family, register_adapter
from exda_primitives.primitives import ExDAAttention


class MDTA(Family):
    """One map in; q, k, v from one 1x1 convolution C -> 3C and a depthwise one."""

    name = "mdta"
    replacement = ExDAAttention
    layout = ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """By shape; see :class:`ConvLayout`."""
        return self.layout.find(module)


register_adapter(MDTA())
