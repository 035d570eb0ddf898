"""Plots differences to the host."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exda_primitives.workbench.shared.plotting import BLUE, ORANGE, matplotlib_figure
from exda_primitives.workbench.shared.results import Interval

from .differences import Group
from .forms import ARMS, BASE, COMPARED

_SEED, _MEAN = ORANGE, BLUE


def draw(found: Sequence[Group], path: Path) -> None:
    """Draws panels for the base and the mix in each budget, and one for all variations; nothing without runs.

    Raises:
        ExDAError: where Matplotlib is missing.
    """
    panels = _panels([group for group in found if group.runs])
    interval = "mean and 95 % interval over seeds and photographs"
    draw_panels(panels, path, lambda group: group.difference("psnr"), interval, "the host")


def draw_panels(
    panels: Mapping[str, Mapping[str, Group]],
    path: Path,
    interval: Callable[[Group], Interval],
    what: str,
    host: str,
    columns: int | None = None,
) -> None:
    """Draws panels with one line per group; writes nothing without panels.

    Args:
        panels: title -> label -> group with runs.
        path: file of the image.
        interval: returns a group's interval; if it is infinite, only the mean is drawn.
        what: what the interval is, for the title.
        host: what the differences are to, for the axis.
        columns: panels in a row; all by default.

    Raises:
        ExDAError: where Matplotlib is missing.
    """
    if not panels:
        return
    lines = max(len(panel) for panel in panels.values())
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    figure = matplotlib_figure("train").Figure(
        figsize=(3.0 + 3.4 * columns, 0.7 + rows * (0.9 + 0.4 * lines)), layout="constrained"
    )
    for place, (title, panel) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        for line, group in enumerate(panel.values()):
            of = interval(group)
            axes.plot(group.by_seed("psnr"), [line] * len(group.runs), "o", color=_SEED, markersize=4)
            if math.isfinite(of.high):
                axes.plot([of.low, of.high], [line, line], "-", color=_MEAN)
            axes.plot(of.mean, line, "|", color=_MEAN, markersize=14, markeredgewidth=2)
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=title, xlabel=f"PSNR, difference to {host} (dB)")
        axes.set_yticks(range(len(panel)), list(panel))
        axes.set_ylim(len(panel) - 0.5, -0.5)
    # Two lines, because one would be wider than a single panel.
    figure.suptitle(f"A dot a seed (in brackets how many);\n{what}")
    figure.savefig(path, dpi=110)


def _panels(found: Sequence[Group]) -> dict[str, dict[str, Group]]:
    panels: dict[str, dict[str, Group]] = {}
    for group in sorted(found, key=lambda group: ARMS.index(group.arm)):
        if group.setting in (BASE, "mix"):
            panels.setdefault(f"{group.setting}, equal {group.budget}", {})[f"{group.arm} ({len(group.runs)})"] = group
    varied = [group for group in found if group.arm == COMPARED and group.setting not in (BASE, "mix")]
    if varied:
        panels[f"changed, {COMPARED}"] = {f"{group.setting} ({len(group.runs)})": group for group in varied}
    return panels
