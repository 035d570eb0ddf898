"""Measure how restoration depends on the side of the tiles: networks learn on small patches and restore large images.

Networks that were trained on small patches restore degraded photographs in tiles of several sizes and whole. Attention
across channels, with or without tokens, sums over all pixels that it sees. ``demo`` has the demo's networks, ``long``
the host of the continued training. Writes ``NAME.json`` and ``NAME.md``.
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
from restore_seam import load, networks, photographs, psnr
from rich.console import Console
from rich.progress import track
from torch import nn
from written import write

import exda_primitives as exda
from exda_primitives.workbench.data.degradations import DEGRADATIONS
from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.restoration import restore
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).parent / "results"
SIDES = (64, 96, 128, 192, 256, 384, 512)
MIXED = "haze, rain and noise"
TRAINED = {"demo": f"64 pixels with {MIXED}", "long": "64, then 96 pixels with the eleven degradations of CDD-11"}
"""Patches that the networks were trained on."""
KEYS = {"host": "host", "exda": "patched"}

console = Console()


def main(
    images: Annotated[list[Path], typer.Option(help="Folders of photographs.", exists=True, file_okay=False)],
    host: Annotated[str, typer.Option(help="demo or long.")] = "demo",
    degrade: Annotated[
        list[str] | None, typer.Option(help="Degradations, each by itself; by default the demo's mixture.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the result.")] = "tile_sides",
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
) -> None:
    """Measure and write both files."""
    nets, rows = networks() if host == "demo" else {"host": long_host()}, list[dict[str, Any]]()
    functions = {each: DEGRADATIONS[each] for each in degrade} if degrade else {MIXED: mixed}
    for index, path in enumerate(track(photographs(images), "restoring", console=console)):
        clean = load(path)
        for degradation, function in functions.items():
            degraded = function(clean[None], torch.Generator().manual_seed(index))[0]
            row = {"photograph": path.name, "set": path.parent.name, "degraded": psnr(degraded, clean)}
            row["degradation"] = degradation
            for key, model in nets.items():
                for tile in (*(side for side in SIDES if side < min(clean.shape[1:])), None):
                    restored = restore(model, degraded, tile=tile, overlap=tile and tile // 4)
                    rows.append({**row, "network": key, "tile": tile, "psnr": psnr(restored.image, clean)})
    given = "".join(f" --degrade {each}" for each in degrade or ())
    command = f"python benchmarks/tile_sides.py --images ... --host {host}{given} --name {name}"
    write(name, {"command": command, "machine": machine(), "host": host, "rows": rows}, markdown, out)


def long_host() -> nn.Module:
    """Returns the host of the continued training, from its committed weights."""
    return exda.models.create("restormer", checkpoint=RESULTS / "continued_host.safetensors").eval()


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    sets: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        sets.setdefault((row["set"], row["degradation"]), []).append(row)
    blocks: list[str | list[str]] = []
    for (name, degradation), rows in sets.items():
        degraded = {row["photograph"]: row["degraded"] for row in rows}
        mean = fmean(degraded.values())
        blocks += [f"## {name}, {degradation}: {len(degraded)} photographs, degraded {mean:.2f} dB", _table(rows)]
    pair = "one network" if result["host"] == "long" else "one pair of networks"
    return markdown_page(
        "Tiles or whole images",
        "PSNR of degraded photographs, restored in tiles that overlap by a quarter, and whole. Training patches: "
        f"{TRAINED[result['host']]}. In brackets, Student's 95% interval over photographs; {pair}, so that it says "
        "nothing about other trainings.",
        *blocks,
        provenance(result),
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    psnrs: dict[tuple[str, int | None], dict[str, float]] = {}
    for row in rows:
        psnrs.setdefault((row["network"], row["tile"]), {})[row["photograph"]] = row["psnr"]
    names = {key: name for key, name in KEYS.items() if (key, None) in psnrs}

    def difference(one: tuple[str, int | None], other: tuple[str, int | None]) -> str:
        found = gain([psnrs[one][name] - psnrs[other][name] for name in psnrs[one]])
        return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"

    body = []
    for tile in dict.fromkeys(row["tile"] for row in rows):
        cells = [str(tile or "whole"), *(f"{fmean(psnrs[key, tile].values()):.2f}" for key in names)]
        cells += [difference(("exda", tile), ("host", tile))] if len(names) > 1 else []
        body.append([*cells, *(difference((key, tile), (key, None)) if tile else "" for key in names)])
    head = ["tile (pixels)", *(f"{name} (dB)" for name in names.values())]
    head += ["patched - host (dB)"] if len(names) > 1 else []
    return markdown_table([*head, *(f"{name}: tiles - whole (dB)" for name in names.values())], body)


if __name__ == "__main__":
    typer.run(main)
