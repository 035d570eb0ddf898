"""Results on disk: a line of JSON a case, appended as they come; CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import write_text
from .cases import Case, Comparison
from .check import Check
from .timing import Percentiles

SCHEMA = 1
"""Version of a row; a change of what a field means or is called is another version."""

TIMED, SKIPPED, WRONG, OUT_OF_MEMORY, ERROR = "timed", "skipped", "wrong", "out of memory", "error"
"""Skipped: cannot run here. Wrong: does not compute what it should. Error: raised something else."""

LEFT = "left"
"""Of a record that is never written: there was no time for the case in this call."""


@dataclass(frozen=True)
class Origin:
    """What a case was measured with.

    Attributes:
        command: that was run.
        machine: see ``machine.machine``.
        copy_bandwidth: bytes a second of a plain copy, reading and writing counted.
    """

    command: str
    machine: dict[str, Any]
    copy_bandwidth: float


@dataclass(frozen=True)
class Cost:
    """What a case costs beside time, however it is computed.

    Attributes:
        parameters: of the original.
        extra_parameters: that the primitives add; 0 for the original.
        macs: multiply-accumulates of one forward pass of the original; None where that is not known.
        extra_macs: that the primitives add by the printed formulas; None where that is not known.
        floor_seconds: of a forward pass, see ``floor``; None where that is not known.
        share_in_blocks: of the original's time as it is, in the blocks that ``fuse`` takes; None where it was not
            measured, see ``share``.
        share_fused: likewise, in what of these blocks kernels compute.
    """

    parameters: int
    extra_parameters: int
    macs: int | None
    extra_macs: int | None
    floor_seconds: float | None
    share_in_blocks: float | None = None
    share_fused: float | None = None


@dataclass(frozen=True)
class Record:
    """A case and what became of it.

    Attributes:
        case: what was to be timed.
        status: ``TIMED``, ``SKIPPED``, ``WRONG``, ``OUT_OF_MEMORY``, ``ERROR``, or ``LEFT``.
        origin: what with.
        reason: why it was not timed, or None.
        check: where it came to that.
        cost: where the network could be built.
        seconds: of each turn; empty unless timed.
        ratio: to the unpatched original in the same mode, median over turns of the ratio within a turn.
        ratio_to_eager: to the unpatched original in eager mode.
        peak_bytes: above the weights; None where it cannot be measured.
    """

    case: Case
    status: str
    origin: Origin
    reason: str | None = None
    check: Check | None = None
    cost: Cost | None = None
    seconds: tuple[float, ...] = ()
    ratio: float | None = None
    ratio_to_eager: float | None = None
    peak_bytes: int | None = None

    @property
    def percentiles(self) -> Percentiles | None:
        """Of the times."""
        return Percentiles.of(self.seconds) if self.seconds else None

    @property
    def megapixels_per_second(self) -> float | None:
        """By the median."""
        return self.case.comparison.pixels / 1e6 / self.percentiles.p50 if self.percentiles else None

    def as_row(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema": SCHEMA,
            **asdict(self.case.comparison),
            "variant": self.case.variant,
            "mode": self.case.mode,
            "status": self.status,
            "reason": self.reason,
            **_prefixed("check", self.check, Check),
            **_prefixed("cost", self.cost, Cost),
            **_prefixed("seconds", self.percentiles, Percentiles),
            "turns": len(self.seconds),
            "ratio": self.ratio,
            "ratio_to_eager": self.ratio_to_eager,
            "megapixels_per_second": self.megapixels_per_second,
            "peak_bytes": self.peak_bytes,
            "seconds": list(self.seconds),
            "origin": asdict(self.origin),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Record:
        """What ``as_row`` gave."""
        comparison = Comparison(**{field.name: row[field.name] for field in fields(Comparison)})
        return cls(
            Case(comparison, row["variant"], row["mode"]),
            row["status"],
            Origin(**row["origin"]),
            row["reason"],
            _collected("check", row, Check),
            _collected("cost", row, Cost),
            tuple(row["seconds"]),
            row["ratio"],
            row["ratio_to_eager"],
            row["peak_bytes"],
        )


def _prefixed(prefix: str, of: Any, kind: type) -> dict[str, Any]:
    return {f"{prefix}_{field.name}": getattr(of, field.name, None) for field in fields(kind)}


def _collected(prefix: str, row: dict[str, Any], kind: type) -> Any:
    # What was written before a field was there has none.
    held = {field.name: row[name] for field in fields(kind) if (name := f"{prefix}_{field.name}") in row}
    return kind(**held) if any(each is not None for each in held.values()) else None


def append(path: Path, record: Record) -> None:
    """Adds a line to a file, so that what was measured outlasts an interruption, of this writing as well."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, before + json.dumps(record.as_row()) + "\n")


def read(path: Path) -> list[Record]:
    """The records of a file.

    Raises:
        ConfigError: for a file that is not there, is none of ours, or is of another version.
    """
    records = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as results of exda bench ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            found = row["schema"]
            if found == SCHEMA:
                records.append(Record.from_row(row))
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}, line {number}: is no result of exda bench ({error!r})") from None
        if found != SCHEMA:
            raise ConfigError(
                f"{path}, line {number}: is of version {found!r}, this library reads {SCHEMA}; measure again"
            )
    return records


def write_csv(path: Path, records: Sequence[Record]) -> None:
    """A row a case: all that is one value, with the machine as the commit and the GPU's or processor's name."""
    rows = [_flat(record) for record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _flat(record: Record) -> dict[str, Any]:
    row = record.as_row()
    machine = record.origin.machine
    del row["seconds"], row["origin"]
    return row | {"device": machine.get("gpu", machine["cpu"]), "torch": machine["torch"], "commit": machine["commit"]}


def same_machine(records: Iterable[Record], machine: dict[str, Any], path: Path) -> None:
    """Refuses to add to results that were measured elsewhere: in a table they would stand side by side.

    Raises:
        ConfigError: naming what differs.
    """
    for record in records:
        found = record.origin.machine
        unlike = [key for key in {**found, **machine} if found.get(key) != machine.get(key)]
        if unlike:
            key = unlike[0]
            raise ConfigError(
                f"{path}: holds results of another machine or version ({key} {found.get(key)!r}, here "
                f"{machine.get(key)!r}); give another folder"
            )


def finished(records: Iterable[Record]) -> set[Case]:
    """What need not be run again."""
    return {record.case for record in records}
