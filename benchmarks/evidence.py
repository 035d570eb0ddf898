"""Write ``docs/evidence.md`` and its plots: the paper's claims and their verdicts, from the result files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from claims import awareness, overhead, quality, trained_hosts, values
from claims.claim import Claim
from claims.groups import overview
from claims.page import OVERVIEW, PLOTS, page, plot_of
from claims.plot import svg
from rich.console import Console

from exda_primitives.cli.errors import errors_as_lines

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
COMMAND = "python benchmarks/evidence.py"
CLAIMS: tuple[Claim, ...] = (
    *values.CLAIMS,
    *awareness.CLAIMS,
    *quality.CLAIMS,
    *trained_hosts.CLAIMS,
    *overhead.CLAIMS,
)

console = Console()


def rendered(results: Path) -> dict[str, str]:
    """Returns the files to write: path relative to the docs folder -> text.

    Args:
        results: folder of the result files.

    Raises:
        ConfigError: for a file that is damaged or of another version.
        ExDAError: for a figure that is not finite.
    """
    found = [(claim, claim.measure(results)) for claim in CLAIMS]
    plots = {plot_of(claim): svg(claim, finding) for claim, finding in found if finding}
    if plots:
        plots[OVERVIEW] = overview(found)
    return {"evidence.md": page(found, COMMAND), **plots}


def main(
    results: Annotated[Path, typer.Option(file_okay=False, exists=True)] = RESULTS,
    docs: Annotated[Path, typer.Option(file_okay=False)] = DOCS,
) -> None:
    """Write ``evidence.md`` and its plots, and remove plots of claims that are no longer measured."""
    with errors_as_lines():
        files = rendered(results)
    (docs / PLOTS).mkdir(parents=True, exist_ok=True)
    for path in (docs / PLOTS).glob("*.svg"):
        if f"{PLOTS}/{path.name}" not in files:
            path.unlink()
    for name, text in files.items():
        (docs / name).write_text(text)
    console.print(f"written: {docs / 'evidence.md'}, {len(files) - 1} plots", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
