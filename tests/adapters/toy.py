"""A family and a backbone as a user would write them: attention on the negated map."""

import exda_primitives as exda

from ..patching.lookalikes import Plain


class Negated(Plain):
    """The layers of Restormer's attention, on the negated map: a family of its own."""

    def forward(self, x):
        return super().forward(-x)


class ExDANegated(exda.ExDAAttention):
    def forward(self, x):
        return super().forward(-x)


class NegatedFamily(exda.Family):
    name = "negated"
    replacement = ExDANegated
    layout = exda.ConvLayout(pointwise={"qkv": 3, "project_out": 1}, depthwise={"qkv_dwconv": 3})

    def candidates(self, module):
        return self.layout.find(module)


TOY_NET = exda.Backbone(
    name="toy_net",
    children=frozenset({"head", "blocks", "tail"}),
    stages=(exda.Stage("blocks.0", "first", 1), exda.Stage("blocks", "rest", 2)),
    multiple_of=4,
)
