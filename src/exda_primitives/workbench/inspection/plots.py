"""Draws the findings as Matplotlib figures, to be saved or shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from torch import Tensor

from ..shared.overlay import over_grey
from ..shared.plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION, YELLOW, matplotlib_figure
from ..shared.results import spread
from .spectra import FREQUENCIES, INPUT, NONLINEAR, OUTPUT, VALUE
from .token_maps import area

_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY_BLUE, BLACK, YELLOW)
# 7 markers and 8 colours have no common divisor: 56 labels before two share both.
_MARKERS = "os^DvPX"
# V' is dashed, so that V shows through where the two coincide.
_LINES = {INPUT: (BLUE, "-"), OUTPUT: (ORANGE, "-"), VALUE: (GREEN, "-"), NONLINEAR: (BLACK, "--")}
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_COLUMNS = 4


def scatter(planes: Mapping[str, Tensor], labels: Sequence[str], title: str) -> Any:
    """Draws a panel for each projection, with a colour and a marker for each label.

    Args:
        planes: panel's title -> (images, 2), see ``project``.
        labels: label of each image.
        title: title of the figure.
    """
    figure = matplotlib_figure("diagnose").Figure(figsize=(5.5 * len(planes), 5), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(planes), squeeze=False).flat, planes.items(), strict=True):
        for label, colour, marker in zip(dict.fromkeys(labels), cycle(_COLOURS), cycle(_MARKERS), strict=False):
            mine = points[[each == label for each in labels]]
            axes.scatter(*mine.T.numpy(), s=24, color=colour, marker=marker, label=label, alpha=0.8, linewidth=0)
        # A projection's axes have no unit.
        axes.set(title=name, xticks=[], yticks=[])
    figure.axes[0].legend(fontsize="small")
    figure.suptitle(title)
    return figure


def agreements(found: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], title: str) -> Any:
    """Draws NMI and ARI of every block: a marker at the mean over seeds, a bar from the smallest to the largest.

    Args:
        found: what was embedded -> block -> (NMI, ARI) of each seed.
        title: title of the figure.
    """
    most = max(len(blocks) for blocks in found.values())
    # The axis begins below 0 only if an ARI is negative.
    least = min(
        0.0, *(value for blocks in found.values() for pairs in blocks.values() for each in pairs for value in each)
    )
    figure = matplotlib_figure("diagnose").Figure(
        figsize=(4.2 + 3.6 * len(found), 1.4 + 0.26 * most), layout="constrained"
    )
    for axes, (of, blocks) in zip(figure.subplots(1, len(found), squeeze=False).flat, found.items(), strict=True):
        for index, (score, colour) in enumerate((("NMI", _COLOURS[0]), ("ARI", _COLOURS[1]))):
            for place, pairs in enumerate(blocks.values()):
                values = [pair[index] for pair in pairs]
                # NMI above ARI, so that equal values do not hide each other.
                at = place + 0.24 * (index - 0.5)
                axes.plot([min(values), max(values)], [at, at], color=colour, linewidth=2, alpha=0.5)
                label = score if place == 0 else None
                axes.plot(spread(values).mean, at, "os"[index], color=colour, markersize=5, label=label)
        axes.set(title=of, xlabel="agreement with the degradation", xlim=(least - 0.05, 1.05))
        axes.set_yticks(range(len(blocks)), list(blocks))
        axes.invert_yaxis()
    figure.axes[0].legend(fontsize="small")
    figure.suptitle(title)
    return figure


def spectra_figure(found: Mapping[str, Mapping[str, Tensor]], title: str) -> Any:
    """Draws power over frequency on logarithmic axes, a panel for each attention.

    Args:
        found: attention -> what was measured -> power, see ``spectra``.
        title: title of the figure.
    """
    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // columns)
    figure = matplotlib_figure("diagnose").Figure(figsize=(1 + 3.2 * columns, 1 + 2.6 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    shown = []
    for axes, (name, powers) in zip(panels, found.items(), strict=False):
        if not any((power > 0).any() for power in powers.values()):
            # A logarithmic axis without a positive value would be an error.
            axes.set(title=name, xticks=[], yticks=[])
            axes.text(0.5, 0.5, "no power at any frequency", ha="center", va="center", fontsize="small")
            continue
        for what, power in powers.items():
            # Positive entries only: leaves out zeros, and NaN for rings that a small map does not have.
            there = (power > 0).nonzero().flatten()
            colour, line = _LINES[what]
            axes.plot([FREQUENCIES[i] for i in there], power[there], line, color=colour, label=what, linewidth=1.4)
        axes.set(title=name, xscale="log", yscale="log", xlim=(0.0075, 0.52))
        axes.set_xticks(_TICKS, map(str, _TICKS))
        axes.minorticks_off()
        shown.append(axes)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    if shown:
        max(shown, key=lambda axes: len(axes.lines)).legend(fontsize="small")
    figure.supxlabel("frequency (cycles per pixel of the map)")
    figure.supylabel("power")
    figure.suptitle(title)
    return figure


def sheet(images: Mapping[str, Tensor], maps: Mapping[str, Sequence[Tensor]], title: str) -> Any:
    """Draws token maps on the images: a row for each image, a column for each map, its ``area`` above it.

    Every map is coloured over its own range, from black over red and yellow to white. The area tells how flat it really
    is: 100% is a flat map.

    Args:
        images: caption -> (1, C, H, W) in [0, 1], as the model sees it.
        maps: caption -> for each image (h, w), of sum 1.
        title: title of the figure.
    """
    columns = 1 + len(maps)
    height, width = next(iter(images.values())).shape[-2:]
    side = 1.9
    # The height follows the images' aspect ratio; a fixed one would leave gaps between the rows.
    figsize = (side * columns + 0.3, len(images) * (side * height / width + 0.3) + 0.6)
    figure = matplotlib_figure("diagnose").Figure(figsize=figsize, layout="constrained")
    panels = figure.subplots(len(images), columns, squeeze=False)
    for row, (caption, image) in enumerate(images.items()):
        shown = image.float().cpu().expand(1, 3, -1, -1)
        _show(panels[row, 0], shown, caption)
        for column, (name, each) in enumerate(maps.items(), 1):
            above = f"{name}\n" if row == 0 else ""
            _show(panels[row, column], over_grey(each[row], shown), f"{above}{float(area(each[row])):.0%}")
    figure.suptitle(title)
    return figure


def _show(axes: Any, image: Tensor, caption: str) -> None:
    axes.imshow(image[0].clamp(0, 1).permute(1, 2, 0).numpy())
    axes.set_title(caption, fontsize="small")
    axes.set_axis_off()
