"""Plots results: time, memory and ratio against pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ..shared.plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION, matplotlib_figure
from .cases import CAPTURED, COMPILED, EAGER, MODES, ONNX, OPENVINO, ORIGINAL, VARIANTS
from .record import TIMED, Record
from .table import TITLES

_COLOURS = dict(zip(VARIANTS, (BLACK, ORANGE, BLUE, GREEN, SKY_BLUE, VERMILION, PURPLE), strict=True))
_LINES = {EAGER: "-", COMPILED: "--", CAPTURED: ":", ONNX: "-.", OPENVINO: (0, (3, 1, 1, 1, 1, 1))}
_GIB = 2**30


def plot(records: Sequence[Record], folder: Path) -> list[Path]:
    """Writes a PNG image for each network, task, number format and batch size.

    Args:
        records: from one machine or several; those that were not timed are left out.
        folder: where the images go; created if missing.

    Returns:
        The paths of the images written.

    Raises:
        ExDAError: Matplotlib is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.status == TIMED:
            of = record.case.comparison
            groups.setdefault(f"{of.backbone}-{of.task}-{of.precision}-{of.batch}", []).append(record)
    written = []
    for name, group in groups.items():
        path = folder / f"{name}.png"
        with atomic_write(path) as partial:
            figure(group).savefig(partial, format="png", dpi=150)
        written.append(path)
    return written


def figure(records: Sequence[Record]) -> Any:
    """Draws a Matplotlib figure of three panels, from timed records of one network, task, number format and batch size.

    The panels of time and memory have a dotted guide that is linear in pixels, through the last point of the first
    line; the panel of time also has the bandwidth floor (see ``bandwidth_floor``).
    """
    made = matplotlib_figure("bench").Figure(figsize=(15, 5), layout="constrained")
    time, memory, ratios = made.subplots(1, 3)
    for variant in VARIANTS:
        for mode in MODES:
            _series(time, records, variant, mode, "time (ms)")
            _series(memory, records, variant, mode, "memory (GiB)")
            _series(ratios, records, variant, mode, "ratio")
    of = records[0].case.comparison
    made.suptitle(f"{of.backbone}, {of.task}, {of.precision}, batch {of.batch}: {_devices(records)}")
    for axes, title in ((time, "time (ms), median"), (memory, "peak memory above the weights (GiB)")):
        _guide(axes)
        axes.set(xscale="log", yscale="log", xlabel="pixels", ylabel=title)
    floor = sorted({(record.case.comparison.pixels, floor) for record in records if (floor := _floor(record))})
    if floor:
        time.plot(*zip(*floor, strict=True), color="grey", linestyle="-.", label="bandwidth floor")
    ratios.axhline(1, color="grey", linewidth=0.8)
    ratios.set(xscale="log", xlabel="pixels", ylabel="time over the original's in the same mode")
    time.legend(fontsize="small")
    return made


def _series(axes: Any, records: Sequence[Record], variant: str, mode: str, what: str) -> None:
    points = sorted(
        (record.case.comparison.pixels, value)
        for record in records
        if (record.case.variant, record.case.mode) == (variant, mode) and (value := _value(record, what)) is not None
    )
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=_COLOURS[variant],
            linestyle=_LINES[mode],
            marker="o",
            markersize=3,
            label=f"{TITLES[variant]}, {mode}",
        )


def _value(record: Record, what: str) -> float | None:
    if what == "time (ms)":
        return 1000 * record.percentiles.p50 if record.percentiles else None
    if what == "memory (GiB)":
        return None if record.peak_bytes is None else record.peak_bytes / _GIB
    return None if record.case.variant == ORIGINAL else record.ratio


def _guide(axes: Any) -> None:
    if axes.lines:
        # y = y_last * pixels / pixels_last
        pixels, values = axes.lines[0].get_data()
        axes.plot(pixels, [values[-1] * x / pixels[-1] for x in pixels], color="grey", linestyle=":", label="linear")


def _floor(record: Record) -> float | None:
    seconds = record.cost.floor_seconds if record.cost else None
    return None if seconds is None else 1000 * seconds


def _devices(records: Sequence[Record]) -> str:
    machines = (record.origin.machine for record in records)
    return ", ".join(dict.fromkeys(machine.get("gpu", machine["cpu"]) for machine in machines))
