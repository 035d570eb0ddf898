"""Measure what the three sizes of ExDA cost by resolution: parameters, multiply-accumulates, time and memory on a CPU.

Each network restores one image, whole and with its blocks fused, in a process of its own, beside Restormer. Writes
``exda_sizes.json`` and ``exda_sizes.md``.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from machine import machine
from restore_seam import unit
from rich.console import Console
from rich.progress import track
from written import write

import exda_primitives as exda
from exda_primitives.workbench.bench.networks import count_macs
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).parent / "results"
NETWORKS = ("exda-tiny", "exda-small", "exda-base", "restormer")
LONG = 20
"""Seconds; a pass that takes longer is not repeated."""
SIZES = ((256, 256), (512, 512), (1024, 1024), (1080, 1920), (2160, 3840))

console = Console()
Row = dict[str, Any]


def cost(name: str, size: tuple[int, int], turns: int, gib: float) -> Row:
    """Returns a network's cost for an image of a size (height, width), measured in the calling process.

    Args:
        name: network, as ``models.create`` takes it.
        size: height and width of the image in pixels.
        turns: how often it restores; the fastest counts.
        gib: address space that the process may take; beyond, time and memory are None.
    """
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), resource.RLIM_INFINITY))
    exda.memory.keep()
    model = exda.models.create(name).eval()
    row: Row = {"network": name, "size": [*size], "parameters": sum(each.numel() for each in model.parameters())}
    image = torch.rand(1, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        row |= {"macs": count_macs(model, (1, 3, *size)), "seconds": None, "peak_gib": None}
        exda.fuse(model)
        seconds = []
        try:
            for _ in range(turns):
                start = time.perf_counter()
                model(image)
                seconds.append(time.perf_counter() - start)
                if seconds[-1] > LONG:
                    break
        except (RuntimeError, MemoryError) as error:
            if "memory" not in str(error):
                raise
            return row
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit() / 2**30
    return row | {"seconds": min(seconds), "peak_gib": peak}


def main(
    turns: Annotated[int, typer.Option(min=1, help="Forward passes of each size; the fastest counts.")] = 3,
    gib: Annotated[float, typer.Option(help="Address space that a process may take, in GiB.")] = 24,
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
) -> None:
    """Measure and write both files."""
    cases = [(name, size) for size in SIZES for name in NETWORKS]
    # A process for each: peak memory is a process's.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = [pool.submit(cost, name, size, turns, gib) for name, size in cases]
        rows = [each.result() for each in track(waiting, "restoring", console=console)]
    result = {
        "command": f"python benchmarks/exda_sizes.py --turns {turns} --gib {gib:g}",
        "machine": machine(),
        "turns": turns,
        "gib": gib,
        "rows": rows,
    }
    write("exda_sizes", result, markdown, out)


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    head = ["network", "image (pixels)", "parameters (M)", "MACs (G)", "time (s)", "peak memory (GiB)"]
    body = [
        [
            row["network"],
            f"{row['size'][1]} x {row['size'][0]}",
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['macs'] / 1e9:,.0f}",
            *("-" if row[of] is None else f"{row[of]:.{digits}f}" for of, digits in (("seconds", 1), ("peak_gib", 2))),
        ]
        for row in result["rows"]
    ]
    return markdown_page(
        "ExDA's three sizes by resolution",
        f"One image, whole, in float32, blocks fused; time is the fastest of {result['turns']} passes, or one of "
        f"more than {LONG} s. Multiply-"
        "accumulates are those of the unfused network. Memory is the most that the process held, PyTorch included; a "
        f"dash: more than {result['gib']:g} GiB of address space.",
        markdown_table(head, body),
        provenance(result),
    )


if __name__ == "__main__":
    typer.run(main)
