"""Plots results: PSNR by degradation."""

from __future__ import annotations

import math
from typing import Any

from ..shared.plotting import BLUE, GREY, VERMILION, matplotlib_figure
from ..shared.results import Result

_DEGRADED, _RESTORED, _PUBLISHED = GREY, BLUE, VERMILION


def figure(result: Result) -> Any:
    """Draws a Matplotlib figure: a line per degradation, from the degraded images' mean PSNR to the restored ones'.

    Every restored image is a small dot; infinite values are left out.

    Raises:
        ExDAError: Matplotlib is missing.
    """
    runs = result["runs"]
    made = matplotlib_figure("evaluate").Figure(figsize=(8, 1.6 + 0.45 * len(runs)), layout="constrained")
    axes = made.subplots()
    places = {run["degradation"]: place for place, run in enumerate(runs)}
    images = [(float(each["psnr"]), places[each["degradation"]]) for each in result["pictures"]]
    axes.plot(*_finite(images), ".", color=_RESTORED, markersize=3, alpha=0.4)
    for label, colour, marker, key in (
        ("degraded", _DEGRADED, "o", "degraded_psnr"),
        ("restored", _RESTORED, "o", "psnr"),
    ):
        points = [(float(run[key]), place) for place, run in enumerate(runs)]
        axes.plot(*_finite(points), marker, color=colour, label=label)
    theirs = [(run["published"]["psnr"], place) for place, run in enumerate(runs) if run["published"]]
    if theirs:
        label = f"published ({result['published']['protocol']})"
        axes.plot(*_finite(theirs), "D", color=_PUBLISHED, fillstyle="none", label=label)
    for place, run in enumerate(runs):
        ends = [float(run["degraded_psnr"]), float(run["psnr"])]
        if all(map(math.isfinite, ends)):
            axes.plot(ends, [place, place], color=_RESTORED, linewidth=1, zorder=0)
    axes.set_yticks(range(len(runs)), list(places))
    axes.invert_yaxis()
    config = result["config"]
    axes.set(xlabel=f"PSNR (dB), protocol {config['protocol']['name']}", title=config["network"]["architecture"])
    axes.legend(fontsize="small")
    return made


def _finite(points: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    kept = [point for point in points if math.isfinite(point[0])]
    return [value for value, _ in kept], [place for _, place in kept]
