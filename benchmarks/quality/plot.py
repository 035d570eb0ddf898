"""Differences to the host as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exda_primitives.plotting import BLUE, ORANGE, matplotlib_figure

from .differences import Group
from .forms import ARMS, BASE, COMPARED

_SEED, _MEAN = ORANGE, BLUE


def draw(found: Sequence[Group], path: Path) -> None:
    """Panels of the base and the mix in each budget, and one of what was changed one at a time; none without runs.

    Raises:
        ExDAError: where Matplotlib is missing.
    """
    panels = _panels([group for group in found if group.runs])
    if not panels:
        return
    rows = max(len(panel) for panel in panels.values())
    figure = matplotlib_figure("train").Figure(
        figsize=(3.0 + 3.4 * len(panels), 1.6 + 0.4 * rows), layout="constrained"
    )
    for axes, (title, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for place, group in enumerate(panel.values()):
            of = group.difference("psnr")
            axes.plot(group.by_seed("psnr"), [place] * len(group.runs), "o", color=_SEED, markersize=4)
            axes.plot([of.low, of.high], [place, place], "-", color=_MEAN)
            axes.plot(of.mean, place, "|", color=_MEAN, markersize=14, markeredgewidth=2)
        axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=title, xlabel="PSNR, difference to the host (dB)")
        axes.set_yticks(range(len(panel)), list(panel))
        axes.set_ylim(len(panel) - 0.5, -0.5)
    # In two lines, for a single panel is not as wide.
    figure.suptitle("A dot a seed (in brackets how many);\nmean and 95 % interval over seeds and photographs")
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
