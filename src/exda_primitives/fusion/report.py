"""The report of ``fuse``: plain data, and a readable summary of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FusedStep:
    """A residual step of a fused block.

    Attributes:
        norm: name of the norm in its block.
        function: name of the function in its block.
        kind: ``attention`` or ``gated feed-forward`` (fused with norm and sum), or ``any function`` (only the norm is).
    """

    norm: str
    function: str
    kind: str


@dataclass(frozen=True)
class FusedMatch:
    """A block that was fused.

    Attributes:
        name: its full name in the model.
        aliases: further names of the same shared block.
        steps: its steps, in the order in which they are computed.
    """

    name: str
    aliases: tuple[str, ...]
    steps: tuple[FusedStep, ...]


@dataclass(frozen=True)
class LeftAlone:
    """A module around a known attention that is no block in the sense of ``fuse``, and the reason."""

    name: str
    type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name or '(the model itself)'} ({self.type}): {self.reason}"


@dataclass(frozen=True)
class FusionReport:
    """What ``fuse`` did; ``print`` it for a summary, ``as_dict`` gives data.

    Attributes:
        model: class name of the model.
        blocks: blocks that this call fused.
        left_alone: modules around an attention that are no such block.
        already_fused: names of blocks that were fused before.
        notes: further remarks for the reader.
    """

    model: str
    blocks: tuple[FusedMatch, ...]
    left_alone: tuple[LeftAlone, ...]
    already_fused: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain data: numbers, strings, lists and dictionaries."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.blocks)} blocks fused"]
        kinds = Counter(" + ".join(f"{s.norm}, {s.function} ({s.kind})" for s in block.steps) for block in self.blocks)
        lines += [f"  {count} x {kind}" for kind, count in kinds.items()]
        if self.already_fused:
            lines.append(f"already fused: {len(self.already_fused)}")
        lines += [f"left alone: {each}" for each in self.left_alone]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)
