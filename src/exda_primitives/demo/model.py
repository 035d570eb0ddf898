"""The network whose weights the demo ships."""

from __future__ import annotations

from exda_primitives.models import Restormer


def tiny_restormer() -> Restormer:
    """A Restormer of 420,911 parameters: small enough to ship, and to train on a CPU within an hour."""
    return Restormer(
        dim=12,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        heads=(1, 2, 4, 8),
        ffn_expansion_factor=2.0,
        bias=False,
        LayerNorm_type="WithBias",
    )
