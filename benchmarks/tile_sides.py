"""Measure how restoration depends on the side of the tiles: networks learn on small patches and restore large images.

The demo's networks, trained on patches of 64 pixels, restore photographs that were degraded as in training (haze, rain,
noise), in tiles of several sizes and whole. Attention across channels, with or without tokens, sums over all pixels
that it sees. Writes ``tile_sides.json`` and ``tile_sides.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from claims.verdicts import gain
from machine import machine
from restore_seam import NAMES, load, networks, photographs, psnr
from rich.console import Console
from rich.progress import track
from written import write

from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.restoration import restore
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).parent / "results"
SIDES = (64, 96, 128, 192, 256, 384, 512)
TRAINED = 64
"""Side in pixels of the patches that the demo's networks were trained on."""
HEAD = (
    "tile (pixels)",
    "host (dB)",
    "patched (dB)",
    "patched - host (dB)",
    "host: tiles - whole (dB)",
    "patched: tiles - whole (dB)",
)

console = Console()


def main(
    images: Annotated[list[Path], typer.Option(help="Folders of photographs.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
) -> None:
    """Measure and write both files."""
    nets, rows = networks(), list[dict[str, Any]]()
    for index, path in enumerate(track(photographs(images), "restoring", console=console)):
        clean = load(path)
        degraded = mixed(clean[None], torch.Generator().manual_seed(index))[0]
        row = {"photograph": path.name, "set": path.parent.name, "degraded": psnr(degraded, clean)}
        for name, model in nets.items():
            for tile in (*(side for side in SIDES if side < min(clean.shape[1:])), None):
                restored = restore(model, degraded, tile=tile, overlap=tile and tile // 4)
                rows.append({**row, "network": name, "tile": tile, "psnr": psnr(restored.image, clean)})
    result = {"command": "python benchmarks/tile_sides.py --images ...", "machine": machine(), "rows": rows}
    write("tile_sides", result, markdown, out)


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    sets = {row["set"]: [each for each in result["rows"] if each["set"] == row["set"]] for row in result["rows"]}
    blocks: list[str | list[str]] = []
    for name, rows in sets.items():
        degraded = {row["photograph"]: row["degraded"] for row in rows}
        blocks += [f"## {name}: {len(degraded)} photographs, degraded {fmean(degraded.values()):.2f} dB", _table(rows)]
    return markdown_page(
        "Tiles or whole images",
        "PSNR of photographs with haze, rain and noise, restored in tiles that overlap by a quarter, and whole. The "
        f"networks were trained on patches of {TRAINED} pixels. In brackets, Student's 95% interval over photographs; "
        "one pair of networks, so that it says nothing about other trainings.",
        *blocks,
        provenance(result),
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    psnrs: dict[tuple[str, int | None], dict[str, float]] = {}
    for row in rows:
        psnrs.setdefault((row["network"], row["tile"]), {})[row["photograph"]] = row["psnr"]

    def difference(one: tuple[str, int | None], other: tuple[str, int | None]) -> str:
        found = gain([psnrs[one][name] - psnrs[other][name] for name in psnrs[one]])
        return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"

    body = []
    for tile in dict.fromkeys(row["tile"] for row in rows):
        means = [f"{fmean(psnrs[network, tile].values()):.2f}" for network in NAMES]
        to_whole = [difference((network, tile), (network, None)) if tile else "" for network in NAMES]
        body.append([str(tile or "whole"), *means, difference(("exda", tile), ("host", tile)), *to_whole])
    return markdown_table(HEAD, body)


if __name__ == "__main__":
    typer.run(main)
