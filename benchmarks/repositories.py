"""Run ``exda.plan`` on attention classes and networks of public repositories; write what it saw and whether it is so.

Needs checkouts of the repositories in one folder, named ``owner+name``. Their files are imported one by one; nothing of
theirs is kept.
"""

from __future__ import annotations

import copy
import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from urllib.parse import quote

import torch
import typer
from checkouts import commit_of, imported
from machine import machine, machine_line
from recognised import cell, shortened, sizeless
from repository_cases import CASES, NEAR_MISS, NOTHING, Case
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.patching import Report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
REPEATS = 3
"""Calls of ``plan`` whose median processor time is written: what else the machine does changes it little."""

console = Console()
Row = dict[str, Any]


class Parent(nn.Module):
    """Calls an attention with its arguments, except for integers: those say a map's size, to whoever listens."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, *arguments: Any) -> Any:
        return self.attention(*(each for each in arguments if not isinstance(each, int)))


def examine(case: Case, checkouts: Path) -> Row:
    """Returns what ``exda.plan`` sees in a class, and, if it matches, by how much patching changes its outputs."""
    checkout = checkouts / case.repository.replace("/", "+")
    row: Row = {"repository": case.repository, "commit": None, "file": case.file, "class": case.name}
    row |= {"formula": case.formula, "families": case.families, "expected": case.expected}
    try:
        row["commit"] = commit_of(checkout)
        torch.manual_seed(0)
        with imported(checkout, case.file, case.search) as module:
            return row | _findings(case, Parent(case.make(getattr(module, case.name))).double().eval())
    except Exception as error:
        return row | {"error": shortened(f"{type(error).__name__}: {error}")}


def _findings(case: Case, host: nn.Module) -> Row:
    asked: dict[str, Any] = {"families": case.families} | ({"tokens": 0} if case.families == "window" else {})
    seconds = []
    for _ in range(REPEATS):
        begin = time.process_time()
        report = exda.plan(host, **asked)
        seconds.append(time.process_time() - begin)
    found: Row = {"seen": seen(report), "plan_ms": round(1000 * median(seconds), 1)}
    if report.matches:
        found["attentions"] = Counter(match.family for match in report.matches)
        found["backbone"] = next((match.backbone for match in report.matches if match.backbone), None)
        found["difference"], found["keys_kept"] = _patched(host, case.inputs(), asked)
    found["backbone_expected"] = case.backbone
    if report.near_misses:
        # Attentions of one class are refused for one reason, in different sizes.
        first = {(miss.type, miss.family): miss for miss in reversed(report.near_misses)}
        found["near_misses"] = [
            {"type": miss.type, "family": miss.family, "reason": shortened(miss.reason)} for miss in first.values()
        ]
    return found


def seen(report: Report) -> str:
    """Returns the families of a report's matches, ``NEAR_MISS`` if there are any, or ``NOTHING``."""
    families = sorted({match.family for match in report.matches})
    return " + ".join([*families, *([NEAR_MISS] if report.near_misses else [])]) or NOTHING


def _patched(host: nn.Module, inputs: Sequence[Any], asked: Row) -> tuple[float, bool]:
    """Returns the relative difference that patching makes with random weights, and whether all names are kept."""
    with torch.no_grad():
        for name, parameter in host.named_parameters():
            if name.endswith(("temperature", "rescale")):
                parameter.uniform_(0.5, 4)
            else:
                # Away from constants, at which a network of zeros and ones would hide what its parts compute.
                spread = parameter.std() if parameter.numel() > 1 else torch.ones(())
                parameter.add_((0.3 * spread + 0.02) * torch.randn_like(parameter))
        patched = copy.deepcopy(host)
        exda.patch(patched, **asked)
        expected, got = _outputs(host, inputs), _outputs(patched, inputs)
        difference = _difference(got, expected)
        names = host.state_dict().keys()
        for name, parameter in patched.named_parameters():
            if name not in names:
                parameter.normal_()
        if not _difference(_outputs(patched, inputs), expected) > 1e-6:
            raise ValueError("the outputs do not depend on the attentions")
    return difference, names <= patched.state_dict().keys()


def _difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(got, expected, strict=True))


def _outputs(model: nn.Module, inputs: Sequence[Any]) -> list[Tensor]:
    # Some networks draw random numbers in eval mode too, and some write into their input.
    torch.manual_seed(0)
    outputs = model(*(each.clone() if isinstance(each, Tensor) else each for each in inputs))
    return [each for each in torch.utils._pytree.tree_leaves(outputs) if isinstance(each, Tensor)]


def main(
    checkouts: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of checkouts, owner+name.")],
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
    docs: Annotated[Path, typer.Option(file_okay=False)] = DOCS,
) -> None:
    """Look at every class and write ``repositories.json`` and ``repositories.md``."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    result = {
        "command": "python benchmarks/repositories.py --checkouts FOLDER",
        "machine": machine(),
        "classes": [examine(case, checkouts.resolve()) for case in track(CASES, "planning", console=console)],
    }
    for folder in (out, docs):
        folder.mkdir(parents=True, exist_ok=True)
    (out / "repositories.json").write_text(dumps(result))
    (docs / "repositories.md").write_text(render(result))
    console.print(summary(result), soft_wrap=True)


def dumps(result: Row) -> str:
    """Returns the result as JSON with one line per class."""
    head = json.dumps({key: value for key, value in result.items() if key != "classes"}, indent=2).removesuffix("\n}")
    rows = ",\n".join(f"    {json.dumps(row)}" for row in result["classes"])
    return f'{head},\n  "classes": [\n{rows}\n  ]\n}}\n'


def render(result: Row) -> str:
    """Returns the page, from the result that ``main`` writes."""
    rows = result["classes"]
    lines = [
        "# What is recognised in public repositories",
        "",
        summary(result),
        "",
        "The families expected of a class were written down from its formula, before it was looked at:",
        "",
        "- a family: it computes what the attentions of this family compute, by the same layers and in the same call;",
        "- near miss: channel attention of no family, because of its formula, its layers or its call; or the layers of "
        "a family with another formula;",
        "- nothing: attention over pixels or tokens, which the paper leaves alone, or no attention. Window attention "
        'is recognised where `families="window"` asks for it: in the rows with this family, with `tokens=0`.',
        "",
        "A network's row names, after the families, the backbone whose stages are known. Networks have one block a "
        "level where their arguments allow it. The difference is that between the outputs before and after patching, "
        "in float64 and with random weights, relative to the outputs' maximum. For each match, two more things were "
        "checked: that the outputs depend on the new parameters, and that every name of the state dict is still there. "
        f"The last column is the median processor time of {REPEATS} calls of `plan`. See also "
        "[what is recognised in the networks that PyPI offers](recognised.md).",
        "",
        f"Written by `{result['command']}`. {machine_line(result['machine'])}",
        "",
        "## Class by class",
        "",
        "| repository | class | computes | expected | seen | difference | plan, ms |",
        "|---|---|---|---|---|---|---|",
        *map(_line, rows),
        "",
        'Rows with the family window were asked for with `families="window", tokens=0`.',
        "",
        "## Left alone, with the reason",
        "",
        "| class | repository | not | because |",
        "|---|---|---|---|",
        *_reasons(rows),
    ]
    return "\n".join(lines) + "\n"


def summary(result: Row) -> str:
    """Returns how many classes were recognised, refused and left alone, and which of them unexpectedly."""
    rows = result["classes"]
    looked_at = [row for row in rows if "error" not in row]
    matched = [row for row in looked_at if "attentions" in row]
    missed = sum(row["seen"] == NEAR_MISS for row in looked_at)
    unexpected = [f"{row['class']} of {row['repository']} ({row['seen']})" for row in looked_at if not as_expected(row)]
    failed = [f"{row['class']} of {row['repository']} ({row['error']})" for row in rows if "error" in row]
    said = (
        f"`exda.plan` was asked about {len(rows)} classes of {len({row['repository'] for row in rows})} repositories. "
        f"It recognises {len(matched)}, refuses {missed} with a reason and sees nothing in "
        f"{sum(row['seen'] == NOTHING for row in looked_at)}. Otherwise than expected: "
        f"{', '.join(unexpected) or 'none'}. Patching changes the outputs by at most "
        f"{max((row['difference'] for row in matched), default=0):.1g}. Planning all of them takes "
        f"{sum(row['plan_ms'] for row in looked_at) / 1000:.0f} s of one processor."
    )
    return said + (f" Not looked at: {', '.join(failed)}." if failed else "")


def as_expected(row: Row) -> bool:
    """Returns whether the families that were seen, and the network whose stages are known, are those expected."""
    return (row["seen"], row.get("backbone")) == (row["expected"], row["backbone_expected"])


def _line(row: Row) -> str:
    place = f"https://github.com/{row['repository']}/blob/{row['commit']}/{quote(row['file'])}"
    start = f"| {row['repository']} | [{row['class']}]({place}) | {row['formula']} "
    if "error" in row:
        return f"{start}| {row['expected']} | not looked at | - | - |"
    counts = [f"{count} {family}" for family, count in row.get("attentions", {}).items()]
    what = " + ".join([*counts, *([NEAR_MISS] if "near_misses" in row else [])]) or NOTHING
    network = f"; {row['backbone']}" if row.get("backbone") else ""
    expected = row["expected"] + (f"; {row['backbone_expected']}" if row["backbone_expected"] else "")
    difference = f"{row['difference']:.1g}" if "difference" in row else "-"
    mark = "" if as_expected(row) else "**"
    return f"{start}| {expected} | {mark}{what}{network}{mark} | {difference} | {row['plan_ms']:.0f} |"


def _reasons(rows: Sequence[Row]) -> list[str]:
    # A network's near misses are mostly those of its attention, which has a row of its own, in other sizes.
    lines: dict[tuple[str, ...], str] = {}
    for row in rows:
        for miss in row.get("near_misses", ()):
            start = miss["type"], row["repository"], miss["family"]
            lines.setdefault((*start, sizeless(miss["reason"])), f"| {' | '.join(start)} | {cell(miss['reason'])} |")
    return [*lines.values()]


if __name__ == "__main__":
    typer.run(main)
