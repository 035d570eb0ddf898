"""Measure restoration in tiles: seams, the difference to restoring the whole image, and 12 megapixels in 8 GB.

The demo's networks restore real photographs that were degraded as in the demo (haze, rain, noise). ``seams`` compares
overlaps; ``large`` restores one photograph of 4000 x 3000 pixels with ``exda restore``, in a process of its own.
Each command writes its part of ``restore_seam.json`` and both tables of ``restore_seam.md``.
"""

from __future__ import annotations

import copy
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from machine import machine
from PIL import Image
from rich.console import Console
from rich.progress import track

import exda_primitives as exda
from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.demo.model import tiny_restormer, weights
from exda_primitives.workbench.restoration import restore
from exda_primitives.workbench.restoration.tiled import SEAM_LIMIT
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).parent / "results"
WEIGHTS = resources.files("exda_primitives.workbench.demo") / "data"
LARGE = (4000, 3000)
NAMES = {"host": "the demo's Restormer", "exda": "the same, patched and trained"}

app = typer.Typer(help=__doc__)
console = Console()

Images = Annotated[list[Path], typer.Option(help="Folders of photographs.", exists=True, file_okay=False)]
Out = Annotated[Path, typer.Option(file_okay=False)]


def networks() -> dict[str, torch.nn.Module]:
    """Returns the demo's trained networks by their keys in ``NAMES``."""
    host = tiny_restormer().eval()
    patched = copy.deepcopy(host)
    exda.patch(patched)
    for name, model in (("host", host), ("exda", patched)):
        model.load_state_dict(weights(name))
    return {"host": host, "exda": patched}


def photographs(folders: list[Path]) -> list[Path]:
    return sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".png", ".jpg"))


def load(path: Path) -> torch.Tensor:
    """Reads an image as (3, H, W) float32 in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Returns the PSNR in dB of two images in [0, 1]."""
    return float(-10 * torch.log10((a - b).square().mean()))


@app.command()
def seams(
    images: Images,
    tile: Annotated[int, typer.Option(help="Side of the tiles in pixels.")] = 384,
    overlaps: Annotated[list[int], typer.Option(help="Overlaps to compare, in pixels.")] = [64, 128, 192],  # noqa: B006
    every: Annotated[int, typer.Option(help="Take every n-th photograph.", min=1)] = 1,
    out: Out = RESULTS,
) -> None:
    """Compare overlaps: the seam, and the difference to the image restored whole."""
    rows = []
    paths = photographs(images)[::every]
    for path in track(paths, "restoring", console=console):
        clean = load(path)
        degraded = mixed(clean[None], torch.Generator().manual_seed(0))[0]
        for name, model in networks().items():
            whole = restore(model, degraded).image
            for overlap in overlaps:
                tiled = restore(model, degraded, tile=tile, overlap=overlap)
                assert tiled.seam is not None
                difference = 255 * (tiled.image - whole).abs()
                rows.append(
                    {
                        "photograph": path.name,
                        "network": name,
                        "overlap": overlap,
                        "seam": tiled.seam.largest,
                        "seam_99.9_percent": tiled.seam.percentile,
                        "tile_disagreement": tiled.seam.disagreement,
                        "mean_difference_to_whole": float(difference.mean()),
                        "max_difference_to_whole": float(difference.max()),
                        "psnr_to_whole": psnr(tiled.image, whole),
                        "psnr_to_clean": psnr(tiled.image, clean),
                        "psnr_whole_to_clean": psnr(whole, clean),
                    }
                )
    chosen = " ".join(f"--overlaps {overlap}" for overlap in overlaps)
    save(
        out,
        "seams",
        {
            "command": f"python benchmarks/restore_seam.py seams --images ... --tile {tile} {chosen} --every {every}",
            "machine": machine(),
            "tile": tile,
            "rows": rows,
        },
    )


@app.command()
def large(
    images: Images,
    memory: Annotated[float, typer.Option(help="Memory budget for exda restore in GiB.")] = 8,
    out: Out = RESULTS,
) -> None:
    """Restore 12 megapixels, enlarged from the largest photograph, with ``exda restore``."""
    source = max(photographs(images), key=lambda path: load(path).numel())
    with tempfile.TemporaryDirectory() as folder:
        given, restored = Path(folder) / "photograph.png", Path(folder) / "restored.png"
        degrade_enlarged(source, given)
        command = ["restore", str(given), str(restored), "--checkpoint", str(WEIGHTS / "host.safetensors")]
        command += ["--memory", f"{memory:g}", "--device", "cpu"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", "from exda_primitives.cli import app; app()", *command],
            stdout=subprocess.PIPE,
            text=True,
            # Wide enough that rich wraps no line of the table that is read below.
            env=os.environ | {"COLUMNS": "200"},
        )
        assert process.stdout is not None
        printed = process.stdout.read()
        # wait4 instead of Popen.wait: it returns the peak memory of this very process.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        # The command's table: size, tile, overlap, seam.
        found = re.search(r"4000 x 3000\D+(\d+)\D+(\d+)\D+([\d.]+)", printed)
        if status or found is None:
            raise RuntimeError(f"exda restore failed:\n{printed}")
        with Image.open(restored) as image:
            assert image.size == LARGE
    save(
        out,
        "large",
        {
            "command": f"python benchmarks/restore_seam.py large --images ... --memory {memory:g}",
            "machine": machine(),
            "photograph": source.name,
            "size": LARGE,
            "budget_gib": memory,
            "peak_rss_gib": usage.ru_maxrss * unit() / 2**30,
            "seconds": seconds,
            "tile": int(found[1]),
            "overlap": int(found[2]),
            "seam": float(found[3]),
        },
    )


def unit() -> int:
    """Returns the unit of ``ru_maxrss`` in bytes."""
    return 1 if sys.platform == "darwin" else 1024


def degrade_enlarged(source: Path, target: Path) -> None:
    """Crops the middle of a photograph to 4:3, enlarges it to ``LARGE``, degrades it and saves it."""
    with Image.open(source) as image:
        width = min(image.width, image.height * 4 // 3)
        left = (image.width - width) // 2
        enlarged = image.convert("RGB").crop((left, 0, left + width, width * 3 // 4)).resize(LARGE, Image.LANCZOS)
    clean = torch.from_numpy(np.array(enlarged)).permute(2, 0, 1)[None].float() / 255
    degraded = mixed(clean, torch.Generator().manual_seed(0))
    pixels = (degraded[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(target)


def save(out: Path, part: str, result: dict[str, Any]) -> None:
    """Replaces one part of ``restore_seam.json`` and writes ``restore_seam.md`` from all parts."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "restore_seam.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[part] = result
    path.write_text(json.dumps(results, indent=2) + "\n")
    (out / "restore_seam.md").write_text(markdown(results))
    console.print(markdown(results), highlight=False)


def markdown(results: dict[str, Any]) -> str:
    """Returns all parts that there are as a Markdown page."""
    blocks = [*(seams_section(results["seams"]) if "seams" in results else ())]
    blocks += large_section(results["large"]) if "large" in results else ()
    return markdown_page("Tiles", *blocks)


def seams_section(result: dict[str, Any]) -> list[str | list[str]]:
    """Returns the blocks of the page on seams."""
    rows = result["rows"]
    photographs = {row["photograph"] for row in rows}
    head = ["network", "overlap", "seam, median", "seam, largest", "photographs below the aim", "mean difference"]
    head += ["largest difference", "PSNR to whole", "PSNR to clean: tiled / whole"]
    cells = []
    for name, title in NAMES.items():
        for overlap in sorted({row["overlap"] for row in rows}):
            of = [row for row in rows if (row["network"], row["overlap"]) == (name, overlap)]

            def mean(key: str, of: list[dict[str, Any]] = of) -> float:
                return statistics.mean(row[key] for row in of)

            steps = [row["seam"] for row in of]
            cells.append(
                [
                    title,
                    str(overlap),
                    f"{statistics.median(steps):.2f}",
                    f"{max(steps):.2f}",
                    f"{sum(step < SEAM_LIMIT for step in steps)} of {len(steps)}",
                    f"{mean('mean_difference_to_whole'):.2f}",
                    f"{max(row['max_difference_to_whole'] for row in of):.0f}",
                    f"{mean('psnr_to_whole'):.1f}",
                    f"{mean('psnr_to_clean'):.2f} / {mean('psnr_whole_to_clean'):.2f}",
                ]
            )
    return [
        f"{len(photographs)} degraded photographs in tiles of {result['tile']} pixels. Seam: the largest step that "
        f"blending adds between two neighbouring pixels, in 1/255; the aim is below {SEAM_LIMIT}. Difference: from "
        "the image restored whole, in 1/255. PSNR in dB, mean over photographs.",
        markdown_table(head, cells),
        provenance(result),
    ]


def large_section(result: dict[str, Any]) -> list[str | list[str]]:
    """Returns the blocks of the page on the large image."""
    head = ["image", "budget (GiB)", "peak resident memory (GiB)", "tile", "overlap", "seam (1/255)", "wall time (s)"]
    row = [
        f"{result['size'][0]} x {result['size'][1]}",
        f"{result['budget_gib']:g}",
        f"{result['peak_rss_gib']:.2f}",
        str(result["tile"]),
        str(result["overlap"]),
        f"{result['seam']:.3f}",
        f"{result['seconds']:.0f}",
    ]
    return [
        "## 12 megapixels",
        markdown_table(head, [row]),
        f"{result['photograph']}, enlarged and degraded; restored by `exda restore` with the demo's Restormer. "
        + provenance(result),
    ]


if __name__ == "__main__":
    app()
