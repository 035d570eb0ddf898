"""Cross attention: q from the first map, k and v from the second (AdaIR's and MoCE-IR's channel cross attention)."""

from exda_primitives.patching import ConvFamily, ConvLayout
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDACrossAttention


class Cross(ConvFamily):
    """Two maps in; q by C -> C, k and v by C -> 2C, each with its depthwise convolution of any size.

    The projections of q and of the output have equal shapes: both assignments are candidates, and the probe decides.
    """

    name = "cross"
    replacement = ExDACrossAttention
    inputs = 2
    layout = ConvLayout(
        pointwise={"q": 1, "kv": 2, "project_out": 1},
        depthwise={"q_dwconv": 1, "kv_dwconv": 2},
    )


register_own(Cross())
