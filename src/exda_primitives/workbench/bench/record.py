"""Results on disk: one line of JSON per case, appended as it finishes; CSV for spreadsheets."""

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
"""Version of a row. It changes when a field's name or meaning does."""

TIMED, SKIPPED, WRONG, OUT_OF_MEMORY, ERROR = "timed", "skipped", "wrong", "out of memory", "error"
"""Statuses. Skipped: cannot run here. Wrong: failed its check. Error: raised any other error."""

OUT_OF_TIME = "left"
"""Status of a case that this call had no time for. Such a record is never written to a file."""


@dataclass(frozen=True)
class Origin:
    """The command and the machine that a case was measured with.

    Attributes:
        command: the command line.
        machine: what ``machine.machine`` returned.
        copy_bandwidth: bytes per second, read plus written, of a plain copy.
    """

    command: str
    machine: dict[str, Any]
    copy_bandwidth: float


@dataclass(frozen=True)
class Cost:
    """The costs of a case that do not depend on how it is computed.

    Attributes:
        parameters: number of parameters of the original.
        extra_parameters: parameters that the primitives add; 0 for the original.
        macs: multiply-accumulates of one forward pass of the original; None if not known.
        extra_macs: multiply-accumulates that the primitives add by the printed formulas; None if not known.
        floor_seconds: bandwidth floor of a forward pass, see ``bandwidth_floor``; None if not known.
        share_in_blocks: share of the eager original's time spent in blocks that ``fuse`` takes; None if not measured,
            see ``share``.
        share_fused: share of the eager original's time spent in the parts of these blocks that kernels then compute;
            None if not measured.
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
    """The result of a case.

    Attributes:
        case: what was to be timed.
        status: ``TIMED``, ``SKIPPED``, ``WRONG``, ``OUT_OF_MEMORY``, ``ERROR``, or ``OUT_OF_TIME``.
        origin: command and machine.
        reason: why the case was not timed; None if it was.
        check: result of the check; None if the case did not get that far.
        cost: costs besides time; None if the network could not be built.
        seconds: time of each turn; empty unless timed.
        ratio: time over that of the unpatched original in the same mode: median over turns of the ratio within a turn.
        ratio_to_eager: the same ratio, to the unpatched original in eager mode.
        peak_bytes: peak memory above the weights; None if it cannot be measured.
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
        """The 20th, 50th and 80th percentile of the times; None unless timed."""
        return Percentiles.of(self.seconds) if self.seconds else None

    @property
    def megapixels_per_second(self) -> float | None:
        """Throughput at the median time; None unless timed."""
        return self.case.comparison.pixels / 1e6 / self.percentiles.p50 if self.percentiles else None

    def as_row(self) -> dict[str, Any]:
        """Returns the record as plain data, ready for JSON."""
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
        """Restores a record from what ``as_row`` returned."""
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
    # Files written before a field existed lack it.
    held = {field.name: row[name] for field in fields(kind) if (name := f"{prefix}_{field.name}") in row}
    return kind(**held) if any(each is not None for each in held.values()) else None


def append(path: Path, record: Record) -> None:
    """Adds a record to a file. An interruption, even while writing, loses no earlier record."""
    # The whole file is written anew, since `write_text` replaces it in one step.
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, before + json.dumps(record.as_row()) + "\n")


def read(path: Path) -> list[Record]:
    """Reads the records of a file.

    Raises:
        ConfigError: the file is missing, is no result of ``exda bench``, or has another version.
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
    """Writes one row per case: all fields of a single value, and of the machine its device, PyTorch and commit."""
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
    """Checks that records come from this machine, since all records of a file are compared in one table.

    Raises:
        ConfigError: a record comes from another machine or version; the message names what differs.
    """
    for record in records:
        found = record.origin.machine
        differing = [key for key in {**found, **machine} if found.get(key) != machine.get(key)]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"{path}: holds results of another machine or version ({key} {found.get(key)!r}, here "
                f"{machine.get(key)!r}); give another folder"
            )


def finished(records: Iterable[Record]) -> set[Case]:
    """Returns the cases that need not run again."""
    return {record.case for record in records}
