"""Run ``exda.plan`` on every network of spandrel, spandrel_extra_arches, timm and this package; write its findings.

Networks are built with the default arguments of their classes, or with those in `ARGUMENTS`, without trained weights.
Networks that cannot be built are listed with the reason.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated, Any

import torch
import typer
from machine import machine, machine_line
from rich.console import Console
from rich.progress import track
from torch import nn

import exda_primitives as exda
from exda_primitives.patching import NearMiss
from exda_primitives.patching.registry import known_families

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
PACKAGES = ("exda_primitives", "spandrel", "spandrel_extra_arches", "timm")
# Package -> its module of networks. Included only if installed: nothing else in this repository needs them.
OPTIONAL = {"deepinv": "deepinv.models", "monai": "monai.networks.nets"}
UNKNOWN = "unknown"
STAGES = ("encoder", "latent", "decoder", "refinement", UNKNOWN)
REASON = 200
"""Longest reason that is written, in characters."""
# For classes that cannot be built with their defaults: the smallest configuration that their package reads from a
# checkpoint.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AuraSR": {
        "dim": 64,
        "image_size": 256,
        "input_image_size": 64,
        "style_network": {"dim_in": 128, "dim_out": 512, "depth": 4},
        "unconditional": True,
    },
    "MMRealSR": {"num_in_ch": 3, "num_out_ch": 3},
    "SAFMN": {"dim": 36},
    "SAFMNBCIE": {"dim": 36},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "SRFormer": {"img_size": 64, "window_size": 16},
    "Swin2SR": {"img_size": 64, "window_size": 8},
    "SwinIR": {"img_size": 64, "window_size": 8},
}

console = Console()
Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network to build.

    Attributes:
        package: the package that it comes from.
        group: its module in that package.
        name: its class, or timm's name for it.
        make: builds it.
    """

    package: str
    group: str
    name: str
    make: Callable[[], nn.Module]


def networks(package: str) -> Iterator[Network]:
    """Yields every network of one of `PACKAGES`, or those of one of `OPTIONAL` that need no arguments."""
    if package == "exda_primitives":
        for name, make in _classes(exda.models):
            yield Network(package, name, name, make)
    elif package == "timm":
        timm = importlib.import_module(package)
        for group in timm.list_modules():
            for name in timm.list_models(module=group):
                yield Network(package, group, name, lambda name=name: timm.create_model(name, pretrained=False))
    elif package in OPTIONAL:
        yield from _without_arguments(package)
    else:
        folder = importlib.import_module(f"{package}.architectures")
        for group in sorted(found.name for found in iter_modules(folder.__path__) if found.name[0] != "_"):
            for name, make in _classes(importlib.import_module(f"{folder.__name__}.{group}")):
                yield Network(package, group, name, make)


def _without_arguments(package: str) -> Iterator[Network]:
    folder = importlib.import_module(OPTIONAL[package])
    for group in sorted(found.name for found in iter_modules(folder.__path__) if found.name[0] != "_"):
        module = importlib.import_module(f"{folder.__name__}.{group}")
        for name, kind in sorted(vars(module).items()):
            own = isinstance(kind, type) and (kind.__module__, kind.__name__) == (module.__name__, name)
            if own and name[0] != "_" and issubclass(kind, nn.Module):
                arguments = inspect.signature(kind).parameters
                # Some download pretrained weights by default.
                given = {"pretrained": None} if "pretrained" in arguments else {}
                needed = [each for each in arguments.values() if each.default is each.empty and each.kind not in _MANY]
                if not needed:
                    yield Network(package, group, name, lambda kind=kind, given=given: kind(**given))


_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _classes(module: Any) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    for name in sorted(module.__all__):
        kind = getattr(module, name)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            yield name, lambda kind=kind, name=name: kind(**ARGUMENTS.get(name, {}))


def examine(network: Network) -> Row:
    """Returns the findings of ``exda.plan`` on a network; ``error`` instead if it could not be built or planned."""
    row: Row = {"package": network.package, "group": network.group, "model": network.name}
    try:
        model = _build(network.make)
        report = exda.plan(model)
    except Exception as error:
        return row | {"error": shortened(f"{type(error).__name__}: {error}")}
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if report.matches:
        stages = Counter(match.stage or UNKNOWN for match in report.matches)
        row |= {
            "recognised": Counter(match.family for match in report.matches),
            "backbone": next((match.backbone for match in report.matches if match.backbone), None),
            "stages": {stage: count for stage in STAGES if (count := stages[stage])},
            "extra_parameters": report.extra_parameters,
        }
    if built_in := sum(isinstance(module, exda.ExDAModule) for module in model.modules()):
        row["exda"] = built_in
    if report.near_misses:
        row["near_misses"] = _kinds(report.near_misses)
    return row


def _build(make: Callable[[], nn.Module]) -> nn.Module:
    try:
        # On the meta device nothing is computed or allocated.
        with torch.device("meta"):
            return make()
    except Exception:
        # Some constructors read values of tensors that they make, which meta tensors do not have.
        return make()


def _kinds(near_misses: Iterable[NearMiss]) -> list[Row]:
    """Merges near misses that differ only in sizes; each kind has the first one's reason and their number."""
    kinds: dict[tuple[str, ...], Row] = {}
    for miss in near_misses:
        key = (miss.type, miss.family, sizeless(miss.reason))
        kind = {"type": miss.type, "family": miss.family, "reason": shortened(miss.reason), "count": 0}
        kinds.setdefault(key, kind)["count"] += 1
    return list(kinds.values())


def shortened(text: str) -> str:
    """Returns a text on one line of at most `REASON` characters."""
    line = " ".join(text.split())
    return line if len(line) <= REASON else line[: REASON - 4].rstrip() + " ..."


def main(
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
    docs: Annotated[Path, typer.Option(file_okay=False)] = DOCS,
) -> None:
    """Plan every network and write ``recognised.json`` and ``recognised.md``."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    packages = [*PACKAGES, *(package for package in OPTIONAL if importlib.util.find_spec(package))]
    every = [network for package in packages for network in networks(package)]
    rows = [examine(network) for network in track(every, "planning", console=console)]
    result = {
        "command": "python benchmarks/recognised.py",
        "machine": machine(),
        "versions": {package: version(package) for package in packages},
        "families": list(known_families()),
        "models": rows,
    }
    for folder in (out, docs):
        folder.mkdir(parents=True, exist_ok=True)
    (out / "recognised.json").write_text(dumps(result))
    (docs / "recognised.md").write_text(render(result))
    console.print(summary(result), soft_wrap=True)


def dumps(result: Row) -> str:
    """Returns the result as JSON with one line per network."""
    head = json.dumps({key: value for key, value in result.items() if key != "models"}, indent=2).rstrip("\n}")
    rows = ",\n".join(f"    {json.dumps(row)}" for row in result["models"])
    return f'{head},\n  "models": [\n{rows}\n  ]\n}}\n'


def render(result: Row) -> str:
    """Returns the page, from the result that ``main`` writes."""
    versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
    lines = [
        "# What is recognised in the networks that PyPI offers",
        "",
        summary(result),
        "",
        "Networks are built with the default arguments of their classes and without trained weights: recognition "
        "checks their structure and what a copy with random weights computes. Where several networks of one module "
        "have the same finding, only the smallest is listed. New parameters: those of both primitives in every "
        "attention, with the default configuration.",
        "",
        f"Written by `{result['command']}` for {versions}; run it again to bring this page up to date. "
        f"{machine_line(result['machine'])}",
        "",
        "## Recognised",
        "",
        *_recognised(result["models"]),
        "",
        "## Left alone: look-alikes, with the reason",
        "",
        *_near_misses(result["models"]),
        "",
        "## Nothing alike",
        "",
        *_nothing(result["models"]),
        "## Not built",
        "",
        *_failures(result["models"]),
    ]
    return "\n".join(lines) + "\n"


def summary(result: Row) -> str:
    """Returns how many networks were built, recognised, and have look-alikes, as a paragraph."""
    rows = result["models"]
    built = [row for row in rows if "error" not in row]
    recognised = [row for row in built if "recognised" in row]
    totals = Counter[str]()
    for row in recognised:
        totals.update(row["recognised"])
    held = ", ".join(f"{totals[family]} {family}" for family in result["families"] if totals[family])
    return (
        f"`exda.plan` was asked about {len(rows)} networks, {len(built)} of which could be built. It recognises "
        f"attentions in {len(recognised)} of them ({held}), knows the stages of "
        f"{sum(row['backbone'] is not None for row in recognised)}, and refuses look-alikes in "
        f"{sum('near_misses' in row for row in built)}."
    )


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups networks by package and module, each group with the smallest network first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["package"], row["group"]), []).append(row)
    return [sorted(group, key=lambda row: row.get("parameters", 0)) for group in groups.values()]


def _findings(rows: Iterable[Row], of: Callable[[Row], dict[str, Row]]) -> Iterator[tuple[Row, Row, str]]:
    """Yields for each kind of finding in a module: its smallest network, the finding, the module with their number."""
    for group in _groups(rows):
        first: dict[str, tuple[Row, Row]] = {}
        counts = Counter[str]()
        for row in group:
            found = of(row)
            counts.update(found.keys())
            for kind, finding in found.items():
                first.setdefault(kind, (row, finding))
        for kind, (row, finding) in first.items():
            share = f" ({counts[kind]} of {len(group)})" if len(group) > 1 else ""
            yield row, finding, row["group"] + share


def _attentions(row: Row) -> dict[str, Row]:
    return {f"{row['backbone']} {sorted(row['recognised'])}": row} if "recognised" in row else {}


def _look_alikes(row: Row) -> dict[str, Row]:
    return {f"{kind['type']} {kind['family']} {sizeless(kind['reason'])}": kind for kind in row.get("near_misses", ())}


def sizeless(reason: str) -> str:
    """Returns the beginning of a reason, with # for every number."""
    # Only the first half is compared: where a long reason was cut off depends on its sizes.
    return re.sub(r"\d[\d.]*", "#", reason)[: REASON // 2]


def _recognised(rows: list[Row]) -> list[str]:
    lines = [
        "| network | package | module | attentions | backbone | stages | parameters | new parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, _, module in _findings(rows, _attentions):
        attentions = ", ".join(f"{count} {family}" for family, count in row["recognised"].items())
        stages = ", ".join(f"{stage} {count}" for stage, count in row["stages"].items())
        lines.append(
            f"| {row['model']} | {row['package']} | {module} | {attentions} | {row['backbone'] or '-'} "
            f"| {stages if row['backbone'] else '-'} | {row['parameters']:,} | {row['extra_parameters']:,} |"
        )
    ours = [f"{row['model']} ({row['exda']})" for row in rows if "exda" in row]
    return lines + (["", f"With ExDA attentions of their own: {', '.join(ours)}."] if ours else [])


def _near_misses(rows: list[Row]) -> list[str]:
    lines = ["| network | package | module | look-alikes | not | because |", "|---|---|---|---|---|---|"]
    return lines + [
        f"| {row['model']} | {row['package']} | {module} | {kind['count']} {kind['type']} | {kind['family']} "
        f"| {cell(kind['reason'])} |"
        for row, kind, module in _findings(rows, _look_alikes)
    ]


def _nothing(rows: list[Row]) -> list[str]:
    lines = []
    for package in (*PACKAGES, *OPTIONAL):
        groups = [
            (group[0]["group"], sum(not row.keys() & {"recognised", "near_misses", "exda", "error"} for row in group))
            for group in _groups(row for row in rows if row["package"] == package)
        ]
        bare = [(name, count) for name, count in groups if count]
        if bare:
            names = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in bare)
            lines += [f"**{package}**: {sum(count for _, count in bare)} networks. {names}.", ""]
    return lines


def _failures(rows: list[Row]) -> list[str]:
    failed = [row for row in rows if "error" in row]
    if not failed:
        return ["None."]
    lines = ["| network | package | error |", "|---|---|---|"]
    return lines + [f"| {row['model']} | {row['package']} | {cell(row['error'])} |" for row in failed]


def cell(text: str) -> str:
    """Returns a text that can stand in a cell of a table."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    typer.run(main)
