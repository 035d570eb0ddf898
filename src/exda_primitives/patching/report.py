"""The report of ``plan`` and ``patch``: plain data, and a readable table of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..primitives import ExDAConfig
from ..primitives.config import whereabouts

if TYPE_CHECKING:
    from rich.console import Console

    from .table import Printed, Row


@dataclass(frozen=True)
class Match:
    """An attention that is, or would be, replaced.

    Attributes:
        name: its full name in the model.
        aliases: further names of the same shared module.
        family: ``mdta``, ``cross``, ``gsa``, ``histogram``, ``igmsa``, ``masked``, ``prior``, ``smsa``, ``xca``, or
            one registered by hand.
        dim: C.
        heads: h.
        config: what was or would be added here; ``tokens`` is a number.
        backbone: name of the known network that it is part of, None if there is none.
        stage: ``encoder``, ``latent``, ``decoder`` or ``refinement``; None if the backbone is unknown.
        downscale: image side / map side; None if the backbone is unknown.
        new_parameters: names of the new parameters in the model.
        extra_parameters: total size of the new parameters.
        extra_macs_per_pixel: multiply-accumulates that the paper's formulas add, per pixel of this map.
    """

    name: str
    aliases: tuple[str, ...]
    family: str
    dim: int
    heads: int
    config: ExDAConfig
    backbone: str | None
    stage: str | None
    downscale: int | None
    new_parameters: tuple[str, ...]
    extra_parameters: int
    extra_macs_per_pixel: float


@dataclass(frozen=True)
class NearMiss:
    """A module that looks like an attention of ``family``, and the reason why it is left alone."""

    name: str
    type: str
    family: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name or '(the model itself)'} ({self.type}) is not {self.family}: {self.reason}"


@dataclass(frozen=True)
class Present:
    """An ExDA attention that the model had before.

    Attributes:
        name: its full name in the model, the first if it has several.
        config: its options; ``tokens`` is a number.
        built_in: whether it is part of the network's own code; False if ``patch`` put it there.
    """

    name: str
    config: ExDAConfig
    built_in: bool


@dataclass(frozen=True)
class Report:
    """What ``plan`` found or ``patch`` did; ``print`` it for a table, ``as_dict`` gives data.

    Attributes:
        model: class name of the model.
        applied: whether the matches are replaced now (a plan, and a patch with nothing left to do, replace nothing).
        config: the configuration that was asked for.
        matches: attentions that are or would be replaced.
        near_misses: modules that only look like one.
        present: ExDA attentions that the model had before, selected or not, with this or another configuration.
        multiple_of: what an image's height and width must be divisible by; None if no backbone is known.
        notes: further remarks for the reader.
    """

    model: str
    applied: bool
    config: ExDAConfig
    matches: tuple[Match, ...]
    near_misses: tuple[NearMiss, ...]
    present: tuple[Present, ...]
    multiple_of: int | None
    notes: tuple[str, ...]

    @property
    def already_patched(self) -> tuple[str, ...]:
        """Names of the attentions that were patched before."""
        return tuple(each.name for each in self.present if not each.built_in)

    @property
    def built_in(self) -> tuple[str, ...]:
        """Names of the ExDA attentions that are part of the network's own code."""
        return tuple(each.name for each in self.present if each.built_in)

    @property
    def configs(self) -> dict[str, ExDAConfig]:
        """Name -> configuration of every ExDA attention, those that are or would be added included."""
        present = {each.name: each.config for each in self.present}
        return present | {match.name: match.config for match in self.matches}

    @property
    def extra_parameters(self) -> int:
        """Total size of the new parameters of all matches."""
        return sum(match.extra_parameters for match in self.matches)

    @property
    def new_parameters(self) -> tuple[str, ...]:
        """Names in the model of the new parameters of all matches."""
        return tuple(name for match in self.matches for name in match.new_parameters)

    def extra_macs(self, height: int, width: int) -> int | None:
        """Multiply-accumulates that the paper's formulas add for one image; None unless every map's size is known."""
        if any(match.downscale is None for match in self.matches):
            return None
        return round(sum(m.extra_macs_per_pixel * height * width / m.downscale**2 for m in self.matches if m.downscale))

    def as_dict(self) -> dict[str, Any]:
        """Returns plain data: numbers, strings, lists and dictionaries."""
        return asdict(self) | {
            "already_patched": self.already_patched,
            "built_in": self.built_in,
            "extra_parameters": self.extra_parameters,
            "new_parameters": self.new_parameters,
        }

    def print(self, console: Console) -> None:
        """Prints a heading, the table of matches, totals, near misses and notes."""
        from .table import print_on  # noqa: PLC0415  (rich is for printing alone)

        print_on(console, self._said())

    def __str__(self) -> str:
        from .table import as_text  # noqa: PLC0415  (as above)

        return as_text(self._said())

    def _said(self) -> Printed:
        from .table import Printed  # noqa: PLC0415  (as above)

        verb = "replaced" if self.applied else "to replace"
        heading = f"{self.model}: {len(self.matches)} attentions {verb}"
        return Printed(heading, [_row(group) for group in self.grouped()], [*self._lines()])

    def _lines(self) -> Iterator[str]:
        if self.matches:
            yield self._totals()
        if self.multiple_of:
            yield f"height and width of an image: multiples of {self.multiple_of}"
        for names, what in ((self.already_patched, "already patched"), (self.built_in, "built in")):
            if names:
                yield f"{what}: {len(names)}"
        if len(set(self.configs.values())) > 1:
            yield from (f"with {line}" for line in whereabouts(self.configs))
        yield from (f"left alone: {near_miss}" for near_miss in self.near_misses)
        yield from (f"note: {note}" for note in self.notes)

    def _totals(self) -> str:
        total = f"{self.extra_parameters:,} new parameters"
        macs = self.extra_macs(256, 256)
        if macs is not None:
            total += f", {macs / 1e9:.2f} G more multiply-accumulates for a 256 x 256 image by the printed formulas"
        return total

    def grouped(self) -> Iterator[tuple[Match, ...]]:
        """Yields groups of consecutive matches of one kind: equal stage, family, sizes, and name but for numbers."""
        for _, group in groupby(self.matches, lambda m: (m.stage, m.family, m.dim, m.heads, _parent(m.name))):
            yield tuple(group)


def _row(group: tuple[Match, ...]) -> Row:
    from .table import Row  # noqa: PLC0415  (as above)

    first = group[0]
    return Row(
        module=_span(group),
        n=str(len(group)),
        family=first.family,
        dim=str(first.dim),
        heads=str(first.heads),
        stage=first.stage or "-",
        parameters=f"{sum(match.extra_parameters for match in group):,}",
        macs=f"{sum(match.extra_macs_per_pixel for match in group):,.0f}",
    )


def _span(group: tuple[Match, ...]) -> str:
    """Returns one name for a group: ``encoder_level1.0.attn`` to ``....3.attn`` -> ``encoder_level1.{0..3}.attn``."""
    first, last = group[0].name.split("."), group[-1].name.split(".")
    return ".".join(a if a == b else f"{{{a}..{b}}}" for a, b in zip(first, last, strict=True))


def _parent(name: str) -> str:
    """Returns the name without its numbers: ``encoder_level1.3.attn`` -> ``encoder_level1.*.attn``."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
