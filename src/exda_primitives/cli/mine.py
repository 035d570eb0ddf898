"""``exda bench mine``."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .measure import RESULTS, failed, measure, print_results
from .names import known_names, printable
from .networks import HELP, Ignore, ParamKey, PatchedWith, Reading
from .source import Adapters, given_network, run_adapters

if TYPE_CHECKING:
    import torch

    from ..workbench.bench.cases import Case, Comparison
    from ..workbench.bench.record import Record

_SIZE = {"cuda": "1024", "cpu": "256"}
_TURNS, _WARM_UP = 20, 1
_SHARE = 0.5
"""Share of ``--minutes`` for timed turns; the rest is for building, checking and compiling."""


def mine(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help=f"Weights: {HELP}; or FILE.py:Class, a network class (or function) called without arguments."
        ),
    ],
    model: Annotated[str, typer.Option(help="The network's name; auto: as the checkpoint says.")] = "auto",
    size: Annotated[
        list[str] | None,
        typer.Option(help="256 or 1920x1080; may be given several times. By default 256, on CUDA 1024."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 1,
    precision: Annotated[
        str | None, typer.Option(help="float32, tf32, bf16 or fp16; by default float32, on CUDA bf16.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long the command may take, about.", min=0.01)] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; by default bench-NAME of the network.", file_okay=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Measure what your own network costs on this machine: unmodified, fused, patched and fused, and by other tools.

    In this order: unmodified, by exda.fuse, patched (with new parameters moved away from their start) and fused, by
    onnxruntime and OpenVINO where installed, by torch.compile; on CUDA as CUDA graphs, too. Each is checked against the
    paper's formulas in float64, and one that is wrong is not timed; the others are timed in turns. If the minutes are
    too few, the last of this list are left out. Earlier results of the same network in the folder are replaced.
    """
    from ..errors import ConfigError  # noqa: PLC0415
    from ..patching import is_patched  # noqa: PLC0415
    from ..workbench.bench.budget import Budget, seconds_of_a_pass  # noqa: PLC0415
    from ..workbench.bench.cases import FORWARD, comparisons, padded, parse_size, size_text  # noqa: PLC0415
    from ..workbench.bench.harness import Effort  # noqa: PLC0415
    from ..workbench.bench.networks import Networks  # noqa: PLC0415
    from ..workbench.bench.precision import PRECISIONS  # noqa: PLC0415
    from ..workbench.restoration import Restorer  # noqa: PLC0415
    from .devices import named_device  # noqa: PLC0415

    where = named_device(device)
    number_format = precision or ("bf16" if where.type == "cuda" else "float32")
    known_names("--precision", [number_format], PRECISIONS)
    sizes = [parse_size(each) for each in dict.fromkeys(size or [_SIZE[where.type]])]
    run_adapters(adapter)
    network = given_network("CHECKPOINT", checkpoint, Reading(param_key, ignore, patched_with), model)
    about = Restorer(network)
    for each in sizes:
        if (wanted := padded(each, about.multiple)) != each:
            raise ConfigError(
                f"--size {size_text(each)}: {type(network).__name__} takes sides that are multiples of "
                f"{about.multiple}; exda restore pads such an image to {size_text(wanted)}: give that"
            )
    name = re.sub(r"[^\w.-]+", "-", Path(checkpoint.rpartition(".py:")[2]).stem)
    folder = out or Path(f"bench-{name}")
    _check_folder(folder / RESULTS, name)
    networks = Networks(network, about.channels)
    effort = Effort(_TURNS, _WARM_UP, _SHARE * 60 * minutes / len(sizes), fewest=1)
    budget = Budget(60 * minutes)
    work = [
        (comparison, _cases(comparison, where, patched=is_patched(network)))
        for comparison in comparisons([name], [FORWARD], [number_format], batch, sizes)
    ]
    first = work[0][0]
    least = effort.least(seconds_of_a_pass(networks, first, where, about.multiple))
    if least > budget.seconds:
        raise ConfigError(
            f"--minutes {minutes:g}: at {first.size}, checks and one turn take about {least:.0f} s on this machine; "
            f"give --minutes {math.ceil(least / 30) / 2 + 0.5:g}, or a smaller --size"
        )
    (folder / RESULTS).unlink(missing_ok=True)
    records: list[Record] = []
    left = measure(work, records, where, folder, effort, budget, lambda _: networks)
    print_results(records, left, folder, "give more --minutes")
    _print_conclusion([*records, *left], records, folder)
    if failed(records):
        raise typer.Exit(1)


def _cases(comparison: Comparison, device: torch.device, *, patched: bool) -> list[Case]:
    """Returns the cases, the most important first; without patched variants if the network is patched already."""
    from ..workbench.bench.cases import (  # noqa: PLC0415
        CAPTURED,
        COMPILED,
        EAGER,
        FUSED,
        FUSED_ORIGINAL,
        ONNX,
        OPENVINO,
        ORIGINAL,
        Case,
        installed,
    )

    variants = (ORIGINAL, FUSED_ORIGINAL) if patched else (ORIGINAL, FUSED_ORIGINAL, FUSED)
    modes = (EAGER, CAPTURED) if device.type == "cuda" else (EAGER,)
    ours = [Case(comparison, variant, mode) for variant in variants for mode in modes]
    others = [ONNX, *([OPENVINO] if device.type == "cpu" and installed(OPENVINO) else []), COMPILED]
    return [*ours, *(Case(comparison, ORIGINAL, mode) for mode in others)]


def _check_folder(file: Path, name: str) -> None:
    """Checks that results to be replaced are of the same network.

    Raises:
        ConfigError: if the file has results of another network.
    """
    from ..errors import ConfigError  # noqa: PLC0415
    from ..workbench.bench.record import read  # noqa: PLC0415

    others = {record.case.comparison.backbone for record in (read(file) if file.exists() else [])} - {name}
    if others:
        raise ConfigError(f"{file}: holds results of {', '.join(sorted(others))}; give another folder, by --out")


def _print_conclusion(every: Sequence[Record], records: Sequence[Record], folder: Path) -> None:
    """Writes the plots of ``records``, and prints a sentence for each size in ``every``."""
    from ..errors import ExDAError  # noqa: PLC0415
    from ..workbench.bench.plots import plot  # noqa: PLC0415
    from ..workbench.bench.sentence import sentence  # noqa: PLC0415

    console = Console()
    try:
        lines = [f"written: {path}" for path in plot(records, folder)]
    except ExDAError as error:
        lines = [f"no plot: {error}"]
    for comparison in dict.fromkeys(record.case.comparison for record in every):
        lines.append(sentence([record for record in every if record.case.comparison == comparison]))
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
