"""Write the Markdown pages of results again, from the figures in their result files; nothing is measured.

Run it after the wording of a page has changed. ``docs/evidence.md`` is written by ``python benchmarks/evidence.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
# Run as a script, Python looks for modules beside it alone.
sys.path.insert(0, str(ROOT))

import cpu_forward  # noqa: E402
import demo_report  # noqa: E402
import exda_sizes  # noqa: E402
import fuzz  # noqa: E402
import recognised  # noqa: E402
import repositories  # noqa: E402
import restore_seam  # noqa: E402
import strength  # noqa: E402
import tile_sides  # noqa: E402

from benchmarks.continued import report as continued  # noqa: E402
from benchmarks.kernels import host, tables  # noqa: E402
from benchmarks.quality import report as quality  # noqa: E402
from exda_primitives.workbench.adaptation import report as adaptation  # noqa: E402
from exda_primitives.workbench.bench import record  # noqa: E402
from exda_primitives.workbench.bench import table as bench  # noqa: E402
from exda_primitives.workbench.diagnostics import table as diagnostics  # noqa: E402
from exda_primitives.workbench.diagnostics.digits import DigitsExperiment  # noqa: E402
from exda_primitives.workbench.diagnostics.function import FunctionExperiment  # noqa: E402
from exda_primitives.workbench.diagnostics.position import PositionExperiment  # noqa: E402
from exda_primitives.workbench.diagnostics.windows import WindowsExperiment  # noqa: E402
from exda_primitives.workbench.evaluation import table as evaluation  # noqa: E402
from exda_primitives.workbench.inspection import table as inspection  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"

Page = Callable[[dict[str, Any]], str]
BY_KIND: Mapping[str, Page] = {
    "adapt": adaptation.markdown,
    "continued": continued.markdown,
    "evaluate": evaluation.markdown,
    "inspect": inspection.markdown,
    "quality": quality.markdown,
    **{
        experiment.kind: lambda result, experiment=experiment: diagnostics.markdown(experiment, result)
        for experiment in (DigitsExperiment, WindowsExperiment, FunctionExperiment, PositionExperiment)
    },
}
BY_NAME: Mapping[str, Page] = {
    "cpu_forward": cpu_forward.markdown,
    "demo_weights": demo_report.markdown,
    "exda_sizes": exda_sizes.markdown,
    "fuzz": fuzz.markdown,
    "kernels_host": host.markdown,
    "kernels_report": tables.markdown,
    "restore_seam": restore_seam.markdown,
    "strength": strength.markdown,
    "tile_sides": tile_sides.markdown,
    "tile_sides_long": tile_sides.markdown,
}
"""Renderers of results without a kind, by the name of their file."""

IN_DOCS: Mapping[str, Page] = {"recognised": recognised.render, "repositories": repositories.render}
"""Renderers of pages that are written into the documentation, by the name of their result."""


def rendered() -> dict[Path, str]:
    """Returns path and text of every page that a result file alone determines."""
    pages = {}
    for path in sorted(RESULTS.rglob("*.json")):
        result = json.loads(path.read_text())
        page = BY_KIND.get(result.get("kind")) or BY_NAME.get(path.stem)
        if page is not None:
            pages[path.with_suffix(".md")] = page(result)
        elif path.stem in IN_DOCS:
            pages[DOCS / f"{path.stem}.md"] = IN_DOCS[path.stem](result)
    for path in sorted(RESULTS.rglob("*.jsonl")):
        pages[path.with_suffix(".md")] = bench.markdown(record.read(path))
    return pages


def main() -> None:
    """Write all pages and name those that changed."""
    changed = 0
    for path, text in rendered().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed += 1
            Console().print(f"written: {path.relative_to(ROOT)}", soft_wrap=True)
    Console().print(f"{changed} pages changed")


if __name__ == "__main__":
    typer.run(main)
