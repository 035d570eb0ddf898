"""What was measured of the demo's patch on photographs that it never saw, and of other ways to the same end."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def measured() -> dict[str, Any]:
    """Returns the figures in ``data/measured.json``, which ``benchmarks/demo_patch.py`` writes from its results."""
    found: dict[str, Any] = json.loads((resources.files(__package__) / "data" / "measured.json").read_text())
    return found


def sentences(figures: dict[str, Any]) -> list[str]:
    """Says in two sentences what the figures say; PSNR in dB."""
    psnr, others = figures["psnr"], figures["others"]
    before, after = psnr["host"], psnr["host with the patch"]
    new, own = before
    ways = ", ".join(f"{name} {value:.1f} dB" for name, value in others.items())
    runs = "one run each" if figures["seeds"] == 1 else f"means of {figures['seeds']} runs"
    return [
        f"On {figures['photographs']} photographs that it never saw, the patch brings {new} from {before[new]:.1f} to "
        f"{after[new]:.1f} dB. While it is in, {own}, which the network was trained on, fall from {before[own]:.1f} to "
        f"{after[own]:.1f} dB; unpatch brings them back.",
        f"Other ways to the same end, on crops of these photographs ({runs}): {ways}.",
    ]
