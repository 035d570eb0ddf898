"""The module that replaces a transformer block."""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.bare import does_more
from ..ops.cpu.layout import hand_on, in_layout, layout_for_hosts, may_hand_on
from ..surgery.replacement import ReplacementModule
from .classes import ClassRecords, changed_class
from .settings import NOT_SETTINGS, same
from .snapshot import Snapshot, changed_setting, difference_inside
from .steps import Step

_OWN = frozenset({"_host", "_adopted", "_host_arguments"})
_OWN |= {"_channels", "_steps", "_seen", "_classes", "_sequence", "_exchanged"}
# A forward that is set on a fused block runs before its own. accelerate keeps two more attributes beside it.
_AROUND = frozenset({"forward", "_old_forward", "_hf_hook"})


class FusedBlock(ReplacementModule):
    """A transformer block that computes each of its steps in few passes, where it can.

    It has the block's children under their names, so that state dicts, ``patch`` and ``unpatch`` see no difference.
    Under the backends ``"reference"`` and ``"torch"`` it calls the children, as the block itself does. The block itself
    computes under torch.fx, and if anything outside of its steps, or in the classes of its parts, has been exchanged,
    hooked or set since.

    Args:
        host: the block.
        channels: C, channels of its maps.
        steps: the steps that the block consists of, in order.
        seen: snapshot of the block, in which the parts of the steps may be exchanged.
        classes: records of the classes whose code the steps replace.
    """

    def __init__(
        self, host: nn.Module, channels: int, steps: tuple[Step, ...], seen: Snapshot, classes: ClassRecords
    ) -> None:
        super().__init__()
        # The same dictionaries, not copies: a child that is exchanged here is exchanged in the block.
        self._modules, self._parameters, self._buffers = host._modules, host._parameters, host._buffers
        self._channels, self._steps, self._seen, self._classes = channels, steps, seen, classes
        # The children of the nn.Sequential that the block is in, by name, if it is in one.
        self._sequence: tuple[Mapping[str, nn.Module | None], ...] = ()
        # The settings that both this module and the block had last; FusedBlock stands for one that was removed.
        self._exchanged = _settings(host)
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
        (host,) = self._host
        self._exchange_settings(host)
        return super().release()

    def unsupported_reasons(self, height: int, width: int) -> list[tuple[Step, str | None]]:
        """Returns each step, and why kernels cannot compute it for maps of this size; None if they can."""
        changed = self._difference()
        # In the dtype of the largest parameter, a convolution's: norms are often kept in float32. Expanded: no memory.
        x = max(self.parameters(), key=Tensor.numel).new_empty(()).expand(1, self._channels, height, width)
        return [(step, changed or step.unsupported_reason(self, x)) for step in self._steps]

    def _difference(self) -> str | None:
        """Returns what has changed outside of the steps since the block was recognised; None for nothing."""
        (host,) = self._host
        if type(self) is not FusedBlock or type(host) is not self._seen.kind:
            return f"the block is {type(self if type(self) is not FusedBlock else host).__name__} now"
        compiling = torch.compiler.is_compiling()
        if changed := changed_class(self._classes.key) if compiling else self._classes.changed():
            return f"the class {changed} is another now"
        if changed := changed_setting(self, self._seen, len(self._adopted), _OWN | _AROUND):
            return f"the block has another {changed} now"
        # The block that is replaced here may have been changed where something else still refers to it.
        return difference_inside(host, self._seen, "")

    def _by_host(self, x: Any) -> Any:
        (host,) = self._host
        self._exchange_settings(host)
        return host.forward(x)

    def _exchange_settings(self, host: nn.Module) -> None:
        """Gives the block the mode and what was changed here, and takes over what was changed there."""
        host.training = self.training
        # The compiler cannot list attributes, and that of PyTorch 2.6 does not tell lists apart by identity.
        compiling, before = torch.compiler.is_compiling(), self._exchanged
        names = [*before, *self._seen.shadows] if compiling else {**before, **_settings(self), **_settings(host)}
        unchanged = same if compiling else is_
        for name in names:
            ours, theirs, known = [held.get(name, FusedBlock) for held in (self.__dict__, host.__dict__, before)]
            if not unchanged(ours, known):
                _give(host, name, self.__dict__)
                self._exchanged = {**self._exchanged, name: ours}
            elif not unchanged(theirs, known):
                _give(self, name, host.__dict__)
                self._exchanged = {**self._exchanged, name: theirs}

    def _shares(self, name: str) -> bool:
        return name not in NOT_SETTINGS

    def _replicate_for_data_parallel(self) -> FusedBlock:
        replica = super()._replicate_for_data_parallel()
        # ``_by_host`` needs a host with the replica's own children, which lie on its GPU.
        (host,) = self._host
        of_host = host._replicate_for_data_parallel()
        of_host._modules, of_host._parameters, of_host._buffers = (
            replica._modules,
            replica._parameters,
            replica._buffers,
        )
        replica._host = (of_host,)
        return replica


def reserved(block: nn.Module) -> str | None:
    """Returns an attribute of a block whose name a fused block needs for something else; None if it has none."""
    names = _OWN | ({*dir(FusedBlock)} - {*dir(nn.Module)})
    return next((name for name in vars(block) if name in names), None)


def _settings(module: nn.Module) -> dict[str, Any]:
    """Returns the settings that a fused block and its block have in common."""
    return {
        name: held
        for name, held in vars(module).items()
        if name not in NOT_SETTINGS and name not in _OWN and name not in _AROUND
    }


def _give(module: nn.Module, name: str, settings: Mapping[str, Any]) -> None:
    """Sets a setting, as a property if the module's class has one of that name, or removes it."""
    if name in settings:
        setattr(module, name, settings[name])
    else:
        module.__dict__.pop(name, None)
