"""What stands in for a transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from ..primitives.standin import StandIn
from .steps import Step


class FusedBlock(StandIn):
    """A transformer block that takes each of its steps as few kernels, where these apply.

    It has the block's children under their names, so that state dicts, ``patch`` and ``unpatch`` see no difference.
    Under the backends ``"reference"`` and ``"torch"`` it calls the children, as the block itself does.

    Args:
        host: the block.
        channels: of its maps.
        steps: that it consists of.
    """

    def __init__(self, host: nn.Module, channels: int, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self._take_contents(host)
        self._channels, self._steps = channels, steps
        self._take_surroundings(host)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        for step in self._steps:
            x = step(self, x)
        return x

    def obstacles(self, height: int, width: int) -> list[tuple[Step, str | None]]:
        """Each step, and why kernels cannot compute it for maps of this size; None where they can."""
        # A convolution: norms are often kept in float32. Expanded, it takes next to no memory.
        x = max(self.parameters(), key=Tensor.numel).new_empty(()).expand(1, self._channels, height, width)
        return [(step, step.obstacle(self, x)) for step in self._steps]
