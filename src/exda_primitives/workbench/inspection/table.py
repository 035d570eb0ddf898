"""Formats an inspection as Markdown and for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared.results import Result, spread
from ..shared.tables import markdown_page, markdown_table, provenance, settings_text, spread_text, terminal_table

if TYPE_CHECKING:
    from rich.table import Table

HEAD = ("embedded", "block", "features", "NMI", "ARI")

NOTE = (
    "Agreement of k-means (as many clusters as labels) with the true degradation: mean ± standard deviation over the "
    "seeds of k-means (their number). ARI is corrected for chance, NMI is not: with few images to a label it is far "
    "above 0 for points without any order."
)


def rows_of(result: Result) -> list[list[str]]:
    """Returns a row of text for each block, in the order of ``HEAD``."""
    runs = [row for row in result["runs"] if row["measure"] == "clusters"]
    rows = []
    for of, block, features in dict.fromkeys((row["of"], row["block"], row["features"]) for row in runs):
        mine = [row for row in runs if (row["of"], row["block"]) == (of, block)]
        cells = [spread_text(spread([row[score] for row in mine])) for score in ("nmi", "ari")]
        rows.append([of, block, str(features), *cells])
    return rows


def markdown(result: Result) -> str:
    """Returns the text of ``inspect.md``, with a sentence for each part of the inspection that was left out."""
    return markdown_page(
        "What the attentions know of the degradation",
        NOTE,
        markdown_table(HEAD, rows_of(result)),
        *(f"{note}." for note in result.get("notes", ())),
        f"Configuration: {settings_text(result['config'])}. Seeds of k-means: {', '.join(map(str, result['seeds']))}.",
        provenance(result),
    )


def printed(result: Result) -> Table:
    """Returns the table of clusters for the terminal."""
    table = terminal_table(HEAD, rows_of(result))
    # Folded rather than cut off: several blocks may have the same first letters.
    table.columns[HEAD.index("block")].overflow = "fold"
    return table
