"""MDTA, Restormer's transposed attention, under any class and attribute names.

Restormer, PromptIR, AdaIR, AMIR ``Attention``; X-Restormer ``ChannelAttention``; KBNet ``TransAttention``; OneRestore
``Self_Attention``; MoCE-IR's encoder; and many more. See ``ExDAAttention`` for what it computes.
"""

from exda_primitives.patching import ConvFamily, ConvLayout
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDAAttention


class MDTA(ConvFamily):
    """Takes one map; q, k, v by one 1x1 convolution C -> 3C and a depthwise one."""

    name = "mdta"
    replacement = ExDAAttention
    layout = ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})


register_own(MDTA())
