"""Tables of results, as Markdown and for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shared.results import Result
from ..shared.tables import markdown_page, markdown_table, provenance, settings_text, terminal_table

if TYPE_CHECKING:
    from rich.table import Table


def markdown(result: Result) -> str:
    """Returns a Markdown page with everything except the single images."""
    config = result["config"]
    protocol, network = config["protocol"], config["network"]
    return markdown_page(
        f"{network['architecture']}: PSNR and SSIM by protocol {protocol['name']}",
        markdown_table(*rows_of(result)),
        *remarks(result),
        f"Protocol: {settings_text(protocol)}.",
        f"Network: {settings_text(network)}.",
        f"Images: {settings_text(config['source'])}. Restored with {settings_text(config['restoring'])}. "
        f"Seed: {', '.join(map(str, result['seeds']))}.",
        provenance(result),
    )


def printed(result: Result) -> Table:
    """Returns a table for the terminal."""
    return terminal_table(*rows_of(result), title=f"protocol {result['config']['protocol']['name']}")


def rows_of(result: Result) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of a table; the authors' published figures have their own columns."""
    published = result["published"] is not None
    head = ["degradation", "images", "PSNR (dB)", "SSIM", "degraded PSNR (dB)", "degraded SSIM"]
    rows = []
    for run in result["runs"]:
        row = [run["degradation"], str(run["pictures"]), *_pair(run["psnr"], run["ssim"])]
        row += _pair(run["degraded_psnr"], run["degraded_ssim"])
        if published:
            theirs = run["published"]
            row += [f"{theirs['psnr']:.2f}", f"{theirs['ssim']:.3f}"] if theirs else ["-", "-"]
        rows.append(row)
    return head + (["published PSNR (dB)", "published SSIM"] if published else []), rows


def remarks(result: Result) -> list[str]:
    """Returns what a reader has to know about these figures, one line each."""
    config, published = result["config"], result["published"]
    protocol = config["protocol"]
    lines = []
    if any(run["degradation"] == "average" for run in result["runs"]):
        lines.append("The average is over the degradations, not over the images.")
    if result["note"]:
        lines.append(f"Protocol {protocol['name']}: {result['note']}")
    if published:
        lines.append(
            f"Published: the authors' figures, for the checkpoint trained on {published['trained_on']}, by protocol "
            f"{published['protocol']} ({published['source']}). Whether it is the one measured here is not known."
        )
        if published["protocol"] != protocol["name"]:
            lines.append(
                f"The protocols differ, so they are not comparable: measured here is {protocol['name']}, published "
                f"{published['protocol']}."
            )
    if tiled := sum(image["tile"] is not None for image in result["pictures"]):
        lines.append(f"{tiled} of {len(result['pictures'])} images were restored in tiles, which changes the result.")
    return lines


def _pair(psnr: float | str, ssim: float) -> list[str]:
    return [f"{float(psnr):.2f}", f"{ssim:.4f}"]
