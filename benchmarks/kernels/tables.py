"""Renders the report of what kernels compile to, as Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.stages.compile import SHARED_MEMORY
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

if TYPE_CHECKING:
    from rich.table import Table

_HEAD = (
    "level",
    "pass",
    "registers",
    "spilled",
    "shared",
    "barriers",
    "loads",
    "stores",
    "instructions",
    "MB per block",
    "ms",
)
_CONSTANTS = {"depthwise": ("ACTIVATION", "WIDTH"), "depthwise_backward": ("BX",), "layer_norm": ("CHANNELS",)}
_OTHERS = ("CHANNELS", "OUTPUTS", "ROWS", "C", "K", "C0", "C1", "C2")
"""Constants that distinguish a kernel's launches: those in ``_CONSTANTS`` for some kernels, these for the rest."""

_SMALL_MS = 0.05
"""PyTorch's operations that take less, for all blocks of a level, are summed up in one row."""


def markdown(result: dict[str, Any]) -> str:
    """Returns the whole report as Markdown."""
    blocks: list[str | list[str]] = []
    for network in result["networks"]:
        table = markdown_table(_HEAD, rows_of(result, network))
        blocks += [f"## {title(network)}", table, totals(result, network)]
    if any(each["configuration"] for each in result["compiled"]):
        head = ("kernel", "configuration", *_HEAD[2:9])
        rows = [[_kernel(each), _sets(each), *_code(each)] for each in result["compiled"]]
        blocks += ["## All configurations", markdown_table(head, rows)]
    return markdown_page(
        "What the kernels compile to",
        f"The fused blocks of a Restormer at {result['size']}x{result['size']}, compiled for compute capability "
        f"{result['capability']} in their first configuration. Bytes count each tensor of a launch once. "
        f"Milliseconds are the time that the bytes of all blocks of a level take at {result['tb_per_second']:g} TB/s, "
        "without anything else. Spilled bytes are per thread, shared bytes per program; loads and stores are "
        "instructions by bits per thread.",
        *blocks,
        [f"- {line}" for line in remarks(result)],
        provenance(result),
    )


def printed(result: dict[str, Any]) -> Table:
    """Returns the report as a table for the terminal."""
    from rich.table import Table  # noqa: PLC0415  (for printing alone)

    table = Table(caption="\n".join(remarks(result)), caption_justify="left")
    for index, name in enumerate(_HEAD):
        table.add_column(name, justify="left" if index in (0, 1, 6, 7) else "right", no_wrap=True)
    for network in result["networks"]:
        table.add_section()
        table.add_row("", title(network), style="bold")
        before = None
        for row in rows_of(result, network):
            table.add_row("" if row[0] == before else row[0], *row[1:])
            before = row[0]
        total = f"{network['bytes'] / 1e6:.0f}", f"{_ms(result, network['bytes']):.2f}"
        table.add_row("all", f"{network['launches']} launches", *[""] * 7, *total, style="italic")
    return table


def title(network: dict[str, Any]) -> str:
    """Returns the title of a network's table."""
    patched = "patched" if network["patched"] else "unpatched"
    return f"{network['dtype']}, {patched}{', training step' if network['training'] else ''}"


def rows_of(result: dict[str, Any], network: dict[str, Any]) -> Iterator[list[str]]:
    """Yields a row per pass; each level's last row sums up PyTorch's small operations."""
    for level, of_level in groupby(network["passes"], lambda each: each["level"]):
        small = []
        for each in of_level:
            code = None if each["compiled"] is None else result["compiled"][each["compiled"]]
            if code is None and each["ms"] < _SMALL_MS:
                small.append(each)
                continue
            name = f"PyTorch's {each['name']}" if code is None else _kernel(code)
            yield [level, name, *_code(code), *_cost([each])]
        if small:
            yield [level, f"PyTorch's small operations, {len(small)}", *_code(None), *_cost(small)]


def totals(result: dict[str, Any], network: dict[str, Any]) -> str:
    """Returns a sentence on the launches, bytes and milliseconds of all blocks."""
    moved, least = network["bytes"], network["floor_bytes"]
    text = (
        f"{network['launches']} launches of kernels; {moved / 1e9:.1f} GB, {_ms(result, moved):.1f} ms at "
        f"{result['tb_per_second']:g} TB/s."
    )
    # No floor is known for a backward pass.
    return text if network["training"] else f"{text} Attentions alone have to move {least / 1e9:.1f} GB."


def remarks(result: dict[str, Any]) -> list[str]:
    """Lists first configurations that spill, and any configuration that does not compile or does not fit."""
    lines = []
    for each in result["compiled"]:
        where = f"{_kernel(each)}; {_sets(each)}"
        if "error" in each:
            lines.append(f"{where}: {each['error']}")
        elif each["shared"] > SHARED_MEMORY:
            lines.append(f"{where}: {each['shared']} bytes of shared memory do not fit into {SHARED_MEMORY}")
        elif each["spilled"] and not each["configuration"]:
            lines.append(f"{where}: spills {each['spilled']} bytes")
    return list(dict.fromkeys(lines)) or ["No first configuration spills, and every one compiles and fits."]


def _kernel(code: dict[str, Any]) -> str:
    name = _short(code["kernel"])
    given = code["arguments"]
    constants = [f"{key} {given[key]}" for key in _CONSTANTS.get(name, _OTHERS) if given.get(key)]
    return f"{name} {', '.join(constants)}".strip()


def _short(kernel: str) -> str:
    return kernel.removeprefix("_").removesuffix("_kernel")


def _sets(code: dict[str, Any]) -> str:
    sets = code["sets"]
    own = [f"{name} {value}" for name, value in sets.items() if name.isupper()]
    return ", ".join([*own, f"{sets['num_warps']} warps", f"{sets['num_stages']} stages"])


def _code(code: dict[str, Any] | None) -> list[str]:
    if code is None or "error" in code:
        return ["-"] * 7
    plain = [str(code[name]) for name in ("registers", "spilled", "shared", "barriers")]
    return [*plain, _widths(code["loads"]), _widths(code["stores"]), str(code["instructions"])]


def _widths(counts: dict[int | str, int]) -> str:
    return " ".join(f"{count}x{bits}" for bits, count in counts.items()) or "none"


def _cost(passes: list[dict[str, Any]]) -> tuple[str, str]:
    return f"{sum(each['bytes'] for each in passes) / 1e6:.1f}", f"{sum(each['ms'] for each in passes):.2f}"


def _ms(result: dict[str, Any], moved: int) -> float:
    return float(1e-9 * moved / result["tb_per_second"])
