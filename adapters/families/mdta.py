"""MDTA: Restormer's transposed attention, under whatever name and attribute names it goes.

Restormer, PromptIR, AdaIR, AMIR ``Attention``; X-Restormer ``ChannelAttention``; KBNet ``TransAttention``; OneRestore
``Self_Attention``; MoCE-IR's encoder; and many more: see ``ExDAAttention`` for what it computes.
"""

from exda_primitives.patching import ConvFamily, ConvLayout
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDAAttention


class MDTA(ConvFamily):
    """One map in; q, k, v from one 1x1 convolution C -> 3C and a depthwise one."""

    name = "mdta"
    replacement = ExDAAttention
    layout = ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})


register_own(MDTA())
