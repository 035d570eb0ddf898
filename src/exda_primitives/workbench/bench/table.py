"""Tables of results, as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from ...errors import some_of
from ..shared.machine import machine_line
from ..shared.tables import markdown_page, markdown_table, terminal_table
from .cases import EAGER, ORIGINAL, TRAINING, VARIANTS
from .record import TIMED, Record

if TYPE_CHECKING:
    from rich.table import Table

Item = TypeVar("Item")

TITLES = {
    ORIGINAL: "original",
    "reference": "patched, formulas as printed",
    "torch": "patched, concat-free",
    "triton": "patched, Triton",
    "auto": "patched",
    "fused": "patched, blocks fused",
    "fused-original": "original, blocks fused",
}
_GIB = 2**30
_NOTES = (
    "All variants of a row took turns in one run. Times in ms: median; in brackets the ratio to the unpatched "
    "original in the same mode, median over turns of the ratio within a turn. Memory: the most held at a time above "
    "the weights. Every case that is timed was checked before, at its size and in its mode, against the printed "
    "formulas in float64 (float32 where that does not fit). A dash: not timed, for a reason below. Where a network was "
    "given patched, it is itself the original."
)


def markdown(records: Sequence[Record]) -> str:
    """Returns a Markdown page with all results."""
    blocks: list[str | list[str]] = [_NOTES]
    for title, group in _groups(records):
        blocks += [f"## {title}", markdown_table(*_comparison(group))]
    blocks += ["## All that was timed", markdown_table(*_details(records))]
    if any(record.status != TIMED for record in records):
        blocks += ["## Not timed", markdown_table(*left_out(records))]
    for origin in _distinct((machine_line(record.origin.machine), record.origin.copy_bandwidth) for record in records):
        blocks.append(f"{origin[0]} A plain copy reads and writes {origin[1] / 1e9:.3g} GB/s.")
    commands = _distinct(record.origin.command for record in records)
    return markdown_page("Speed and memory", *blocks, [f"Command: `{command}`" for command in commands])


def printed(records: Sequence[Record]) -> list[Table]:
    """Returns tables for the terminal: a narrow one of what was timed, and one of what was not."""
    return [terminal_table(head, rows, title) for title, (head, rows) in _for_terminal(records) if rows]


def left_out(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of a table that says why cases were not timed, one row per status and reason."""
    cases: dict[tuple[str, str], list[str]] = {}
    for record in records:
        if record.status != TIMED:
            cases.setdefault((record.status, record.reason or ""), []).append(str(record.case))
    rows = [[status, reason, some_of(names)] for (status, reason), names in cases.items()]
    return ["status", "reason", "cases"], rows


def _for_terminal(records: Sequence[Record]) -> Iterator[tuple[str, tuple[list[str], list[list[str]]]]]:
    for title, group in _groups(records):
        timed = [record for record in group if record.status == TIMED]
        # For eager cases both ratios are the same, so that one column is enough.
        two = any(record.case.mode != EAGER for record in timed)
        head = ["network", "size", "mode", "variant", "ms", "ratio", *(["to eager"] if two else []), "GiB"]
        yield title, (head, [_row(record, two) for record in timed])
    yield "Not timed", left_out(records)


def _row(record: Record, two: bool) -> list[str]:
    assert record.percentiles is not None
    return [
        *(record.case.comparison.backbone, record.case.comparison.size, record.case.mode, record.case.variant),
        f"{1000 * record.percentiles.p50:.4g}",
        _number(record.ratio, ".3f"),
        *([_number(record.ratio_to_eager, ".3f")] if two else []),
        _gib(record),
    ]


def _groups(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        of = record.case.comparison
        images = f"{of.batch} image{'s' if of.batch > 1 else ''} at a time"
        task = "Training step" if of.task == TRAINING else "Forward pass"
        groups.setdefault(f"{task}, {of.precision}, {images}", []).append(record)
    return [(title, group) for title, group in groups.items() if any(record.status == TIMED for record in group)]


def _comparison(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    variants = [each for each in VARIANTS if any(r.case.variant == each and r.status == TIMED for r in records)]
    places: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        if record.status == TIMED:
            key = (record.case.comparison.backbone, record.case.comparison.size, record.case.mode)
            places.setdefault(key, {})[record.case.variant] = record
    head = ["network", "size", "mode", *(f"{TITLES[each]} (ms)" for each in variants)]
    head += [f"{TITLES[each]} (GiB)" for each in variants]
    rows = []
    for key, found in places.items():
        times = [_time(found.get(each)) for each in variants]
        rows.append([*key, *times, *(_gib(found.get(each)) for each in variants)])
    return head, rows


def _time(record: Record | None) -> str:
    if record is None or record.percentiles is None:
        return "-"
    median = f"{1000 * record.percentiles.p50:.4g}"
    return median if record.ratio is None or record.case.variant == ORIGINAL else f"{median} ({record.ratio:.3f})"


def _gib(record: Record | None) -> str:
    return "-" if record is None or record.peak_bytes is None else f"{record.peak_bytes / _GIB:.3g}"


def _details(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    head = [
        *("network", "task", "format", "batch", "size", "variant", "mode", "p20 (ms)", "p50 (ms)", "p80 (ms)", "turns"),
        *("ratio", "ratio to eager", "MPix/s", "peak (GiB)", "bandwidth floor (ms)", "extra parameters"),
        *("MACs (G)", "extra MACs (G)", "time in blocks that fuse takes", "fused of that"),
        *("max error", "relative error", "the original's own", "checked against"),
    ]
    return head, [_detail(record) for record in records if record.status == TIMED]


def _detail(record: Record) -> list[str]:
    of, times, check, cost = record.case.comparison, record.percentiles, record.check, record.cost
    assert times is not None
    assert check is not None
    assert cost is not None
    return [
        *(of.backbone, of.task, of.precision, str(of.batch), of.size, record.case.variant, record.case.mode),
        *(f"{1000 * each:.4g}" for each in (times.p20, times.p50, times.p80)),
        str(len(record.seconds)),
        _number(record.ratio, ".3f"),
        _number(record.ratio_to_eager, ".3f"),
        _number(record.megapixels_per_second, ".3g"),
        _gib(record),
        _number(cost.floor_seconds, ".3g", 1e3),
        f"{cost.extra_parameters:,}",
        _number(cost.macs, ".4g", 1e-9),
        _number(cost.extra_macs, ".4g", 1e-9),
        _number(cost.share_in_blocks, ".1%"),
        _number(cost.share_fused, ".1%"),
        f"{check.max_error:.2g}",
        f"{check.error:.2g}",
        f"{check.own_error:.2g}",
        check.against,
    ]


def _number(value: float | None, form: str, scale: float = 1) -> str:
    return "-" if value is None else format(value * scale, form)


def _distinct(items: Iterable[Item]) -> list[Item]:
    return list(dict.fromkeys(items))
