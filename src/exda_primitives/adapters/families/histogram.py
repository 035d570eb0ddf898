"""Histoformer's ``Attention_histogram``: sorted channels, a box and an interleaved branch, softmax_1."""

from exda_primitives.patching import ConvFamily, ConvLayout
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDAHistogramAttention


class Histogram(ConvFamily):
    """Takes one map; q1, k1, q2, k2 and v by one 1x1 convolution C -> 5C and a depthwise one."""

    name = "histogram"
    replacement = ExDAHistogramAttention
    layout = ConvLayout(pointwise={"qkv": 5, "project_out": 1}, depthwise={"qkv_dwconv": 5})


register_own(Histogram())
