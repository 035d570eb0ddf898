"""Fuzz every reader of files with damaged and crafted inputs for a given time, and write the outcomes.

Each damaged input is made from the seed and its number, so that any of them can be made again. A reader must either
take a file or refuse it with one of the library's own errors, and a refused checkpoint must leave the model unchanged.
Anything else is a finding, and its input is kept.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from fuzzing import checkpoints, crafted, images
from fuzzing.mutations import MUTATIONS
from machine import machine
from rich.console import Console

from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).resolve().parent / "results"
TARGETS: dict[str, tuple[Callable[[Path], bool], dict[str, bytes], dict[str, bytes]]] = {
    "checkpoint": (checkpoints.attack, checkpoints.whole_files(), crafted.crafted_files()),
    "image": (images.attack, images.whole_images(), images.crafted_images()),
}
"""Kind of file -> its attack, intact files to damage, crafted files."""

console = Console()
Input = tuple[str, str, bytes]
"""Kind of damage, file name, contents."""


def crafted_inputs(target: str) -> Iterator[Input]:
    """Yields the crafted files of a target."""
    for name, data in TARGETS[target][2].items():
        yield "crafted", name, data


def damaged_inputs(target: str, seed: int) -> Iterator[Input]:
    """Yields damaged copies of a target's intact files without end, all mutations in turn."""
    whole = TARGETS[target][1]
    for number, mutation in enumerate(cycle(MUTATIONS)):
        # Each input depends on its number alone, not on the inputs before it.
        random = Random(f"{seed} {target} {number}")
        name = random.choice(sorted(whole))
        yield mutation, name, MUTATIONS[mutation](whole[name], random)


def attack(target: str, inputs: Iterator[Input], until: float, folder: Path, findings: list[dict[str, Any]]) -> Counter:
    """Gives inputs to all readers of a target.

    Args:
        target: kind of file, a key of ``TARGETS``.
        inputs: the inputs; crafted ones are never cut short.
        until: time on the monotonic clock at which to stop.
        folder: where each input is written for the readers.
        findings: list that findings are added to.

    Returns:
        (damage, outcome) -> number of inputs; an outcome is taken, refused or findings.

    Raises:
        SystemExit: if code in a file was run.
    """
    counts: Counter = Counter()
    for kind, name, data in inputs:
        if kind != "crafted" and time.monotonic() > until:
            break
        path = folder / name
        path.write_bytes(data)
        try:
            counts[kind, "taken" if TARGETS[target][0](path) else "refused"] += 1
        except Exception as error:
            counts[kind, "findings"] += 1
            kept = RESULTS / "findings" / f"{len(findings)}-{name}"
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(data)
            findings.append({"target": target, "kind": kind, "file": kept.name, "error": f"{type(error)}: {error}"})
        path.unlink()
        if os.path.exists(crafted.EVIDENCE):
            raise SystemExit(f"code in {name} was run")
    return counts


COLUMNS = ("target", "damage", "inputs", "refused", "taken", "findings")


def markdown(result: dict[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    rows = [
        [f"{row[column]:,}" if column in COLUMNS[2:] else row[column] for column in COLUMNS] for row in result["rows"]
    ]
    total = sum(row["inputs"] for row in result["rows"])
    return markdown_page(
        "Under attack",
        f"{total:,} inputs, each given to every reader of its kind; seed {result['seed']}.",
        markdown_table(COLUMNS, rows),
        "Taken: the file could still be read, for example if only a weight or a pixel was changed. A finding: an error "
        "that is not one of the library's own, a model that a refused file has changed, or code that "
        "was run.",
        provenance(result),
    )


def main(
    minutes: Annotated[float, typer.Option(help="Total time, without that of the crafted files.", min=0)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the damage.")] = 0,
) -> None:
    """Run the attacks; exit with status 1 if there is a finding."""
    torch.set_num_threads(1)
    findings: list[dict[str, Any]] = []
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Code that a pickle runs leaves its evidence in the working directory.
        os.chdir(folder)
        for target in TARGETS:
            until = time.monotonic() + 60 * minutes / len(TARGETS)
            counts: Counter = Counter()
            for inputs in (crafted_inputs(target), damaged_inputs(target, seed)):
                counts += attack(target, inputs, until, Path(folder), findings)
            for kind in ("crafted", *MUTATIONS):
                outcomes = {outcome: counts[kind, outcome] for outcome in COLUMNS[3:]}
                rows.append({"target": target, "damage": kind, "inputs": sum(outcomes.values()), **outcomes})
    result = {
        "seed": seed,
        "rows": rows,
        "findings": findings,
        "machine": machine(),
        "command": f"python benchmarks/fuzz.py --minutes {minutes:g} --seed {seed}",
    }
    (RESULTS / "fuzz.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "fuzz.md").write_text(markdown(result))
    console.print(markdown(result), markup=False)
    if findings:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
