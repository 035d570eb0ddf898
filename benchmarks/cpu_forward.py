"""Time a Restormer's forward pass on the CPU: unpatched, patched concat-free, and patched as the paper prints it.

The three take turns in one run, so that a machine that slows down does so for all of them; the ratio to the original is
taken within each turn, and the median over turns is reported. Nothing is timed unless the concat-free path agrees with
the reference.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from machine import machine
from rich.console import Console
from rich.progress import track

import exda_primitives as exda
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 1e-4
"""Largest allowed absolute difference between the outputs of the concat-free path and the reference."""
TITLES = {
    "original": "original",
    "concat_free": "patched, concat-free (the default)",
    "reference": "patched, formulas as printed",
}

console = Console()


def seconds(run: Callable[[], object]) -> float:
    """Returns the wall time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.no_grad()
def main(
    size: Annotated[int, typer.Option(help="Side of the square image, a multiple of 8.")] = 256,
    turns: Annotated[int, typer.Option(min=1)] = 9,
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
) -> None:
    """Time the forward passes and write ``cpu_forward.json`` and ``cpu_forward.md``."""
    torch.manual_seed(0)
    original = exda.models.Restormer().eval()
    patched = copy.deepcopy(original)
    # Paper init: at identity init, zero gates would hide a wrong term from the comparison below.
    report = exda.patch(patched, exda.ExDAConfig(init="paper"))
    image = torch.rand(1, 3, size, size)

    def reference() -> torch.Tensor:
        with exda.backend("reference"):
            restored: torch.Tensor = patched(image)
        return restored

    error = float((patched(image) - reference()).abs().max())
    if error > TOLERANCE:
        raise typer.BadParameter(f"concat-free and reference differ by {error:.2g}, more than {TOLERANCE:g}: not timed")
    runs = {
        "original": lambda: original(image),
        "concat_free": lambda: patched(image),
        "reference": reference,
    }
    for run in runs.values():
        run()  # warm-up
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(turns), "timing", console=console):
        for name, run in runs.items():
            times[name].append(seconds(run))

    result = {
        "command": f"python benchmarks/cpu_forward.py --size {size} --turns {turns}",
        "machine": machine(),
        "model": "Restormer, default configuration, both primitives in all 44 attentions",
        "parameters": sum(p.numel() for p in original.parameters()),
        "extra_parameters": report.extra_parameters,
        "input": [1, 3, size, size],
        "dtype": "float32",
        "max_error_to_reference": error,
        "seconds": times,
        "median_ratio_to_original": {
            name: round(statistics.median(t / o for t, o in zip(each, times["original"], strict=True)), 3)
            for name, each in times.items()
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "cpu_forward.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "cpu_forward.md").write_text(markdown(result))
    console.print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    times, ratios = result["seconds"], result["median_ratio_to_original"]
    rows = [[title, f"{statistics.median(times[name]):.2f}", f"{ratios[name]:.3f}"] for name, title in TITLES.items()]
    return markdown_page(
        "Forward pass on a CPU",
        f"{result['model']}; float32, input {result['input']}, {len(times['original'])} interleaved turns.",
        markdown_table(["", "median (s)", "ratio to the original, median over turns"], rows),
        provenance(result),
    )


if __name__ == "__main__":
    typer.run(main)
