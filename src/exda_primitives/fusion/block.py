"""The module that replaces a transformer block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..ops.bare import does_more
from ..ops.cpu.layout import hand_on, in_layout, layout_for_hosts, may_hand_on
from ..surgery.replacement import ReplacementModule
from .snapshot import difference, snapshot
from .steps import Step


class FusedBlock(ReplacementModule):
    """A transformer block that computes each of its steps in few passes, where it can.

    It has the block's children under their names, so that state dicts, ``patch`` and ``unpatch`` see no difference.
    Under the backends ``"reference"`` and ``"torch"`` it calls the children, as the block itself does. The block itself
    computes under torch.fx, and if anything outside of its steps has been exchanged, hooked or set since.

    Args:
        host: the block.
        channels: C, channels of its maps.
        steps: the steps that the block consists of, in order.
    """

    def __init__(self, host: nn.Module, channels: int, steps: tuple[Step, ...]) -> None:
        super().__init__()
        # The same dictionary, not a copy: a child that is exchanged here is exchanged in the block.
        self._modules = host._modules
        self._channels, self._steps = channels, steps
        # The children of the nn.Sequential that the block is in, by name, if it is in one.
        self._sequence: tuple[Mapping[str, nn.Module | None], ...] = ()
        self._seen = snapshot(host, {name for step in steps for name in (step.norm, step.function)})
        self._share_hooks_and_attributes(host)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        given = layout_for_hosts(x)
        if self._difference():
            return self._by_host(in_layout(x, given))
        out = x
        hands_on = may_hand_on(x) and self._feeds_block()
        for step in self._steps:
            out = step(self, out, given, step is self._steps[-1] and not hands_on)
        return hand_on(out, given) if hands_on else in_layout(out, given)

    def set_sequence(self, sequence: nn.Sequential) -> None:
        """Says which nn.Sequential calls the block: to another fused block after it, maps go in channels_last."""
        # Its dictionary of children, which copies of the whole model share likewise.
        self._sequence = (sequence._modules,)

    def _feeds_block(self) -> bool:
        """Whether the sequence gives this block's output to another fused block, with no hook in between."""
        blocks = [block for children in self._sequence for block in children.values()]
        places = [place for place, block in enumerate(blocks) if block is self]
        # A block that stands there twice may be followed by something else the second time.
        after = blocks[places[0] + 1 : places[0] + 2] if len(places) == 1 else []
        return any(isinstance(each, FusedBlock) and not (does_more(each) or does_more(self)) for each in after)

    def call_when_traced(self, x: Any) -> Any:
        """Records the calls that the block itself makes."""
        return self._by_host(x)

    def release(self) -> nn.Module:
        """Returns the block, see ``ReplacementModule.release``, with the settings as they are now."""
        host = super().release()
        self._bring_up_to_date(host)
        return host

    def unsupported_reasons(self, height: int, width: int) -> list[tuple[Step, str | None]]:
        """Returns each step, and why kernels cannot compute it for maps of this size; None if they can."""
        changed = self._difference()
        # In the dtype of the largest parameter, a convolution's: norms are often kept in float32. Expanded: no memory.
        x = max(self.parameters(), key=Tensor.numel).new_empty(()).expand(1, self._channels, height, width)
        return [(step, changed or step.unsupported_reason(self, x)) for step in self._steps]

    def _difference(self) -> str | None:
        """Returns what has changed outside of the steps since the block was recognised; None for nothing."""
        return difference(self, self._seen, "", FusedBlock)

    def _by_host(self, x: Any) -> Any:
        (host,) = self._host
        self._bring_up_to_date(host)
        return host.forward(x)

    def _bring_up_to_date(self, host: nn.Module) -> None:
        # Settings and mode may have been changed on this module since; the children are shared anyway.
        host.__dict__.update({name: self.__dict__[name] for name, _ in self._seen.settings if name in self.__dict__})
        host.training = self.training

    def _replicate_for_data_parallel(self) -> FusedBlock:
        replica = super()._replicate_for_data_parallel()
        # ``_by_host`` needs a host with the replica's own children, which lie on its GPU.
        (host,) = self._host
        of_host = host._replicate_for_data_parallel()
        of_host._modules = replica._modules
        replica._host = (of_host,)
        return replica
