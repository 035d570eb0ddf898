"""Channel cross attention (AdaIR's, MoCE-IR's): q is computed from the first map, k and v from the second."""

from exda_primitives.patching import ConvFamily, ConvLayout
from exda_primitives.patching.registry import register_own
from exda_primitives.primitives import ExDACrossAttention


class Cross(ConvFamily):
    """Takes two maps; q by a 1x1 convolution C -> C, k and v by one C -> 2C, each with a depthwise one of any size.

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
