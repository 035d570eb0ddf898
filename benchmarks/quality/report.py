"""Writes a result as Markdown tables and as a plot, next to its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.claims.files import hours_of
from exda_primitives.workbench.shared.results import Interval, Result, spread
from exda_primitives.workbench.shared.tables import markdown_table, provenance

from .differences import ENOUGH_SEEDS, Group, groups
from .forms import ARMS, BASE, COMPARED, FORMS, HOST, QUIET
from .plot import draw
from .quietness import by_degradation, by_photographs, by_recipe
from .students import curve

SCORES = ("nmi", "ari")
BUDGETS = {"steps": "equal steps", "time": "equal time"}


def write_report(result: Result, path: Path, console: Console) -> None:
    """Writes ``.md`` and ``.png`` next to the result's file and prints the Markdown."""
    text = markdown(result)
    path.with_suffix(".md").write_text(text)
    draw(groups(result), path.with_suffix(".png"))
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def markdown(result: Result) -> str:
    """Returns the report as Markdown: what was trained, and tables for each setting and budget."""
    found = groups(result)
    parts = ["# Do the primitives restore better?", "", *(f"{line}\n" for line in _how(result))]
    parts += _quietness(result, found)
    sections = dict.fromkeys((group.setting, group.budget) for group in found if len(arms_of(found, group)) > 1)
    for setting, budget in sections:
        there = _sorted([group for group in found if (group.setting, group.budget) == (setting, budget)])
        parts += [f"## {there[0].what[0].upper()}{there[0].what[1:]}, {BUDGETS[budget]}", "", *_hosts(result, setting)]
        parts += [*_overview(result, there), "", *_by_degradation(there), "", *_curve(there), *_told_apart(there)]
    varied = [group for group in found if group.setting != BASE and group.arm == COMPARED and group.budget == "steps"]
    if varied:
        parts += [f'## One thing at a time ("{COMPARED}", equal steps)', "", *_variations(found, varied), ""]
    parts += [*_left(result), *origin(result)]
    return "\n".join(parts) + "\n"


def arms_of(found: Sequence[Group], like: Group) -> list[str]:
    """Returns the arms that were trained in the same setting and budget as a group."""
    return [group.arm for group in found if (group.setting, group.budget) == (like.setting, like.budget)]


def shown(interval: Interval, digits: int = 3) -> str:
    """Formats an interval as ``+0.123 [+0.011, +0.234]``."""
    low, mean, high = (f"{each:+.{digits}f}" for each in interval)
    return f"{mean} [{low}, {high}]"


def _how(result: Result) -> list[str]:
    config = result["config"]
    recipe, data, test = config["recipe"], config["data"], config["test"]
    train, photographs = config["pictures"]["train"], config["pictures"]["test"]
    epochs = recipe["steps"] * recipe["batch"] / (train["pictures"] * len(data["degradations"]))
    whole = "whole" if test["crop"] is None else f"the middle {test['crop']} x {test['crop']} pixels of each"
    widened = config["widened"]["ffn_expansion_factor"]
    model = ", ".join(f"{name} {value}" for name, value in config["model"].items() if name != "name")
    return [
        f"Form {config['form']}: Restormer ({model}); the widened host has feed-forwards of factor {widened} in place "
        f"of {config['model']['ffn_expansion_factor']} and therefore as many parameters as the host with both "
        f"primitives.",
        f"Trained on {train['pictures']} crops with {', '.join(data['degradations'])}: {recipe['steps']:,} steps of "
        f"{recipe['batch']} patches of {data['patch']}, AdamW, learning rate {recipe['learning_rate']:g}, L1; each "
        f"crop is seen {epochs:.3g} times with each degradation. The test set is "
        f"{photographs['pictures']} photographs, {whole}, degraded by a fixed seed. {test['protocol']}.",
        "Differences are to the host of the same seed, with a 95 % bootstrap interval that draws seeds and then "
        f"photographs, the same ones for all seeds. Nothing is concluded from fewer than {ENOUGH_SEEDS} seeds. "
        "With three, the interval is still too narrow: without any effect, all three seeds are on the same side of 0 "
        'in one of four cases, and several arms are compared. "Better" and "worse" only mean that the interval does '
        "not contain 0.",
    ] + [
        f"Equal time ({name}): a step of the host takes {pace['host_seconds']:.3g} s ({pace['clock']}; arms in turns, "
        f"median of the ratios within a turn); the others take "
        + ", ".join(f"{arm} {ratio:.2f}" for arm, ratio in pace["ratio"].items() if arm != HOST)
        + " times as long and make fewer steps accordingly. Preparing the training pairs is not counted."
        for name, pace in result["paces"].items()
    ]


def _quietness(result: Result, found: Sequence[Group]) -> list[str]:
    """Returns the tables of scatter over seeds, for the form ``QUIET`` only."""
    found = [group for group in found if len(group.runs) > 1]
    if result["config"]["form"] != QUIET.name or not found:
        return []
    return ["## How quiet it is", "", *by_recipe(found), *by_degradation(found), *by_photographs(found)]


def _hosts(result: Result, setting: str) -> list[str]:
    runs = [
        run
        for run in result["runs"]
        if (run["setting"], run["budget"], run["arm"]) == (setting, "steps", HOST) and run["scores"]
    ]
    if not runs:
        return []
    of = spread([float(np.mean([score["psnr"] for score in run["scores"].values()])) for run in runs])
    given = np.mean([score["degraded_psnr"] for score in runs[0]["scores"].values()])
    deviation = "" if of.deviation is None else f", standard deviation over seeds {of.deviation:.3f}"
    return [
        f"Host: {runs[0]['parameters']:,} parameters, {of.mean:.3f} dB (seeds: {of.n}{deviation}); the degraded "
        f"photographs have {given:.3f} dB.",
        "",
    ]


def _overview(result: Result, there: Sequence[Group]) -> list[str]:
    rows = []
    for group in there:
        if not group.runs:
            rows.append([group.arm, "-", "-", "0", "-", "-", "-", f"{group.diverged} diverged"])
            continue
        run = next(iter(group.runs.values()))
        verdict = group.verdict + (f", {group.diverged} diverged" if group.diverged else "")
        rows.append(
            [
                group.arm,
                f"{run['parameters']:,}",
                f"{run['steps']:,}",
                str(len(group.runs)),
                f"{group.mean('psnr'):.3f}",
                shown(group.difference("psnr")),
                shown(group.difference("ssim"), 4),
                verdict,
            ]
        )
    head = ["arm", "parameters", "steps", "seeds", "PSNR (dB)", "difference in PSNR (dB)", "in SSIM", "in PSNR"]
    return markdown_table(head, rows)


def _by_degradation(there: Sequence[Group]) -> list[str]:
    there = [group for group in there if group.runs]
    if not there:
        return []
    rows = [[name, *(shown(group.difference("psnr", [name])) for group in there)] for name in there[0].degradations]
    return markdown_table(["PSNR, difference to the host (dB)", *(group.arm for group in there)], rows)


def _curve(there: Sequence[Group]) -> list[str]:
    there = [group for group in there if group.runs]
    rows = curve(there)
    if not rows:
        return []
    how = "After so many steps, difference to the host in PSNR (dB), with Student's interval over seeds:"
    return [how, "", *markdown_table(["steps", *(group.arm for group in there)], rows), ""]


def _told_apart(there: Sequence[Group]) -> list[str]:
    rows = []
    for group in there:
        # Older runs lack this score.
        seeds = [seed for seed in group.runs if all(of[seed].get("told_apart") for of in (group.hosts, group.runs))]
        if seeds:
            both = [[runs[seed]["told_apart"] for seed in seeds] for runs in (group.hosts, group.runs)]
            cells = [" -> ".join(f"{np.mean([e[score] for e in each]):.3f}" for each in both) for score in SCORES]
            rows.append([group.arm, str(len(seeds)), *cells])
    if not rows:
        return []
    how = (
        "How well k-means clusters of the outputs of all attentions agree with the degradations, host -> arm: mean "
        "over seeds and runs of k-means."
    )
    return [how, "", *markdown_table(["arm", "seeds", "NMI", "ARI"], rows), ""]


def _variations(found: Sequence[Group], varied: Sequence[Group]) -> list[str]:
    base = [group for group in found if (group.setting, group.budget, group.arm) == (BASE, "steps", COMPARED)]
    rows = []
    for group in [*base, *varied]:
        row = [group.what, str(len(group.runs))]
        row += (
            [f"{group.mean('psnr'):.3f}", shown(group.difference("psnr")), group.verdict] if group.runs else ["-"] * 3
        )
        rows.append(row)
    return markdown_table(["changed", "seeds", "PSNR (dB)", "difference to the host (dB)", ""], rows)


def _left(result: Result) -> list[str]:
    form = FORMS.get(result["config"]["form"])
    if form is None:
        return []
    done = {run["name"] for run in result["runs"]}
    left: dict[str, int] = {}
    for job in form.jobs():
        if job.name not in done:
            key = f"{job.setting.what}, {BUDGETS[job.budget]}"
            left[key] = left.get(key, 0) + 1
    if not left:
        return []
    return ["## Not done yet", "", *(f"- {what} ({number})" for what, number in left.items()), ""]


def origin(result: Result) -> list[str]:
    """Returns lines on the number of runs, hours of training, machine and command."""
    again = [line for run in result["runs"] for leg in run.get("legs", []) for line in leg["not_bit_for_bit"]]
    lines = [f"{len(result['runs'])} runs, {hours_of(result):.2f} hours of training in wall-clock time.", ""]
    if again:
        lines += [f"Taken up again, but not bit for bit: {'; '.join(dict.fromkeys(again))}.", ""]
    return [*lines, provenance(result)]


def _sorted(there: Sequence[Group]) -> list[Group]:
    return sorted(there, key=lambda group: ARMS.index(group.arm))
