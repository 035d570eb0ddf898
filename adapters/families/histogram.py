"""Histoformer's ``Attention_histogram``: sorted channels, box and interleaved branches, softmax_1."""

from collections.abc import Mapping, Sequence

from torch import nn

from exda_primitives.patching import ConvLayout, Family, register_adapter
from exda_primitives.primitives import ExDAHistogramAttention


class Histogram(Family):
    """One map in; q1, k1, q2, k2, v from one 1x1 convolution C -> 5C and a depthwise one."""

    name = "histogram"
    replacement = ExDAHistogramAttention
    layout = ConvLayout(pointwise={"qkv": 5, "project_out": 1}, depthwise={"qkv_dwconv": 5})

    def candidates(self, module: nn.Module) -> Sequence[Mapping[str, str]]:
        """By shape; see :class:`ConvLayout`."""
        return self.layout.find(module)


register_adapter(Histogram())
