"""Plots the history of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import atomic_write
from ..shared.plotting import matplotlib_figure


def draw(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws loss, learning rate and, if there was a validation, PSNR over the steps, as a PNG file.

    Args:
        history: the result's ``history``.
        path: file of the image; replaced atomically.
    """
    psnr = [(line["step"], line["psnr"]) for line in history if line["psnr"] is not None]
    figure = matplotlib_figure("train").Figure(figsize=(15 if psnr else 10, 4), layout="constrained")
    panels = figure.subplots(1, 3 if psnr else 2)
    steps = [line["step"] for line in history]
    for axes, name in zip(panels, ("loss", "learning_rate"), strict=False):
        axes.plot(steps, [line[name] for line in history], marker="." if len(steps) < 50 else "")
        axes.set(xlabel="step", ylabel=name.replace("_", " "))
    panels[0].set(yscale="log")
    if psnr:
        panels[2].plot(*zip(*psnr, strict=True), marker=".")
        panels[2].set(xlabel="step", ylabel="validation PSNR (dB)")
    with atomic_write(path) as partial:
        # The format is given, as the partial file's name does not end in .png.
        figure.savefig(partial, dpi=150, format="png")
