"""Writes a result as Markdown tables and as a plot, next to its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.claims.verdicts import CONFIDENCE, POWER
from benchmarks.quality.differences import ENOUGH_SEEDS, Group, groups
from benchmarks.quality.forms import COMPARED, HOST, WIDENED
from benchmarks.quality.plot import draw_panels
from benchmarks.quality.report import origin
from benchmarks.quality.students import curve, mean_of, student, visible_effect, with_interval
from exda_primitives.workbench.shared.results import Interval, Result
from exda_primitives.workbench.shared.tables import markdown_table

from .forms import ARMS, EVERYTHING, FORMS, FROZEN, LORA

Run = Mapping[str, Any]
QUESTIONS = (("Everything is trained", HOST, EVERYTHING), ("The host is frozen", LORA, FROZEN))
"""For each question: its title, the arm that the others are compared with, and the arms."""


def write_report(result: Result, path: Path, console: Console) -> None:
    """Writes ``.md`` and ``.png`` next to the result's file and prints the Markdown."""
    text = markdown(result)
    path.with_suffix(".md").write_text(text)
    interval = "mean and Student's 95 % interval over seeds"
    draw_panels(_panels(result), path.with_suffix(".png"), _student, interval, "that arm", columns=len(QUESTIONS))
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def markdown(result: Result) -> str:
    """Returns the report as Markdown: what was trained, learning rates, and tables for each setting."""
    config = result["config"]
    title = "What trained hosts gain" if config["form"] == "continued" else "What a trained host learns"
    parts = [f"# {title}", "", *(f"{line}\n" for line in _how(result)), *_rates(result)]
    for setting in dict.fromkeys(run["setting"] for run in result["runs"]):
        runs = [run for run in result["runs"] if run["setting"] == setting]
        what = runs[0]["what"]
        parts += [f"## {what[0].upper()}{what[1:]}", "", *_untrained(result, runs)]
        for question, first, arms in QUESTIONS:
            asked = [run for run in runs if run["arm"] in arms]
            if asked:
                there = [group for group in groups(result, first) if group.setting == setting and group.arm in arms]
                parts += [
                    f"### {question}",
                    "",
                    *_overview(result, asked, there, first),
                    "",
                    *_control(result, setting),
                ]
                parts += [*_by_degradation(there, first), *_curve(there), *_tiled(result, asked)]
    return "\n".join([*parts, *_left(result), *origin(result)]) + "\n"


def _student(group: Group) -> Interval:
    return student(group.by_seed("psnr"))


def verdict(differences: Sequence[float]) -> str:
    """Returns what the seeds' differences allow to conclude: better, worse, inconclusive or too few seeds."""
    if len(differences) < ENOUGH_SEEDS:
        return f"too few seeds ({len(differences)})"
    found = student(differences)
    return "better" if found.low > 0 else "worse" if found.high < 0 else "inconclusive"


def _how(result: Result) -> list[str]:
    config = result["config"]
    host, recipe, search = config["host"], config["recipe"], config["search"]
    train, test = config["pictures"]["train"], config["pictures"]["test"]
    model = ", ".join(f"{name} {value}" for name, value in host["model"].items() if name != "name")
    crop = config["test"]["crop"]
    whole = "whole" if crop is None else f"the middle {crop} x {crop} pixels of each"
    made = "; then ".join(
        f"{phase['recipe']['steps']:,} steps with patches of {phase['patch']}, learning rate "
        f"{phase['recipe']['learning_rate']:g}"
        for phase in host["phases"]
    )
    average = f", moving average {recipe['ema']} of the weights" if recipe.get("ema") else ""
    arms = {run["arm"] for run in result["runs"]}
    lora = "; ".join(f"{arm}: {rank}" for arm, rank in config["ranks"].items())
    return [
        f"Host: {host['name']}, Restormer ({model}), trained on {', '.join(host['degradations'])}"
        + (f": {made}." if made else "."),
        f"Every arm starts from its weights: {recipe['steps']:,} steps of {recipe['batch']} patches of "
        f"{config['data']['patch']} from {train['pictures']} crops, AdamW, L1, half a cosine to 0{average}; the seed "
        "determines the order of the data, the degradations and the new parameters. Primitives start at the identity."
        + (
            f" The widened host has feed-forwards of factor {config['widened']['ffn_expansion_factor']} in place of "
            f"{host['model']['ffn_expansion_factor']}; their new channels have no effect at the start."
            if WIDENED in arms
            else ""
        )
        + (f" Ranks of LoRA: {lora}." if lora else ""),
        f"The test set is {test['pictures']} photographs, {whole}, degraded by a fixed seed. "
        f"{config['test']['protocol']}. "
        f"Learning rates were chosen by the loss at the end of {search['steps']} steps with seed {search['seed']}, "
        "which no other run has.",
        "Differences are taken for each seed between means over degradations and photographs, with Student's "
        f'{CONFIDENCE:.0%} interval over seeds. "Visible" is the smallest true difference that this many seeds with '
        f"this scatter would separate from 0 in {POWER:.0%} of cases: an inconclusive result does not rule out smaller "
        f"ones. With fewer than {ENOUGH_SEEDS} seeds, nothing is concluded.",
    ]


def _rates(result: Result) -> list[str]:
    searched = result["searched"]
    if not searched:
        return []
    rates = sorted({rate for losses in searched.values() for rate in losses}, key=float)

    def cell(losses: Mapping[str, float | None], rate: str) -> str:
        loss = losses.get(rate)
        return ("diverged" if rate in losses else "-") if loss is None else f"{loss:.5f}"

    rows = [[arm, *(cell(losses, rate) for rate in rates), _taken(result, arm)] for arm, losses in searched.items()]
    return ["Loss by learning rate:", "", *markdown_table(["arm", *rates, "taken"], rows), ""]


def _taken(result: Result, arm: str) -> str:
    """Formats the rate of the arm's runs; at an edge of those tried, that is said: a better one may be beyond it."""
    rates = {run["learning_rate"] for run in result["runs"] if run["arm"] == arm and run["scores"]}
    tried = [float(rate) for rate in result["searched"][arm]]
    at_edge = {min(tried): ", the smallest", max(tried): ", the largest"}
    return "; ".join(f"{rate:g}{at_edge.get(rate, '')}" for rate in sorted(rates)) or "-"


def _untrained(result: Result, runs: Sequence[Run]) -> list[str]:
    scored = next((run for run in runs if run["scores"]), None)
    if scored is None:
        return []
    lines = []
    for what, names in (("these degradations", scored["scores"]), ("its own", scored.get("own", {}))):
        if names:
            held = [result["untrained"][name] for name in names]
            given, restored = (float(np.mean(each)) for each in zip(*map(_given, held), strict=True))
            lines.append(f"of {what} the input has {given:.3f} dB, the host as it is makes {restored:.3f} dB")
    return [f"{'; '.join(lines)[0].upper()}{'; '.join(lines)[1:]}.", ""]


def _given(scores: Mapping[str, Any]) -> tuple[float, float]:
    return scores["degraded_psnr"], float(np.mean(scores["psnr"]))


def _overview(result: Result, runs: Sequence[Run], there: Sequence[Group], first: str) -> list[str]:
    keeps = any("own" in run for run in runs)
    differences = {group.arm: group for group in there}
    rows = []
    for arm in [name for name in ARMS if any(run["arm"] == name for run in runs)]:
        mine = [run for run in runs if run["arm"] == arm]
        good = [run for run in mine if run["scores"]]
        diverged = f"{len(mine) - len(good)} diverged" if len(good) < len(mine) else ""
        if not good:
            rows.append([arm, *["-"] * (11 if keeps else 8), diverged])
            continue
        row = [arm, f"{good[0]['parameters']:,}", f"{good[0]['trained_parameters']:,}"]
        row += [f"{good[0]['learning_rate']:g}", str(len(good))]
        row += [
            f"{np.mean([mean_of(run['scores'], metric) for run in good]):.{digits}f}" for metric, digits in _METRICS
        ]
        group = differences.get(arm)
        if group is not None and group.runs:
            by_seed = group.by_seed("psnr")
            row += [with_interval(by_seed), visible_effect(by_seed)]
            said = ", ".join(filter(None, (verdict(by_seed), diverged)))
        else:
            row += ["-", "-"]
            said = ", ".join(filter(None, ("the others are compared with it" if arm == first else "-", diverged)))
        if keeps:
            row += [f"{np.mean([mean_of(run['own'], 'psnr') for run in good]):.3f}"]
            row += ["yes" if all(run["given_back"] for run in good) else "no"]
            row += [f"{good[0]['bytes'] / 1000:,.0f} kB"]
        rows.append([*row, f"{result['paces']['ratio'][arm]:.2f}", said])
    kept = ["its own (dB)", "given back", "file"] if keeps else []
    head = ["arm", "parameters", "trained", "rate", "seeds", "PSNR (dB)", "SSIM", f"difference to {first} (dB)"]
    return markdown_table([*head, "visible (dB)", *kept, "time per step (host 1)", "in PSNR"], rows)


def _control(result: Result, setting: str) -> list[str]:
    """Returns a line that compares both primitives with the widened host, which has as many parameters."""
    over = [group for group in groups(result, WIDENED) if (group.setting, group.arm) == (setting, COMPARED)]
    if not over or not over[0].runs:
        return []
    by_seed = over[0].by_seed("psnr")
    seeds = f"{len(by_seed)} {'seed' if len(by_seed) == 1 else 'seeds'}"
    return [
        f'"{COMPARED}" to "{WIDENED}": {with_interval(by_seed)} dB, {seeds}, visible {visible_effect(by_seed)}.',
        "",
    ]


_METRICS = (("psnr", 3), ("ssim", 4))


def _curve(there: Sequence[Group]) -> list[str]:
    there = [group for group in there if group.runs]
    rows = curve(there)
    return (
        [*markdown_table(["after steps, difference (dB)", *(group.arm for group in there)], rows), ""] if rows else []
    )


def _by_degradation(there: Sequence[Group], first: str) -> list[str]:
    there = [group for group in there if group.runs]
    if not there or len(there[0].degradations) < 2:
        return []
    rows = [
        [name, *(f"{with_interval(of := group.by_seed('psnr', [name]), 2)}, {visible_effect(of)}" for group in there)]
        for name in there[0].degradations
    ]
    head = [f"PSNR, difference to {first} (dB), visible", *(group.arm for group in there)]
    return [*markdown_table(head, rows), ""]


def _tiled(result: Result, runs: Sequence[Run]) -> list[str]:
    """Returns a table of what tiles of the training patches' size gain or cost, by degradation, for each arm."""
    arms: dict[str, list[Run]] = {}
    for run in runs:
        if run.get("tiled"):
            arms.setdefault(run["arm"], []).append(run)
    if not arms:
        return []
    names = list(next(iter(arms.values()))[0]["tiled"])

    def cell(held: Sequence[Run], chosen: Sequence[str]) -> str:
        gained = [
            mean_of({name: run["tiled"][name] for name in chosen})
            - mean_of({name: run["scores"][name] for name in chosen})
            for run in held
        ]
        return with_interval(gained, 2)

    rows = [[name, *(cell(held, [name]) for held in arms.values())] for name in names]
    rows.append(["average", *(cell(held, names) for held in arms.values())])
    side = result["config"]["data"]["patch"]
    head = [f"in tiles of {side}, difference to whole (dB)", *(f"{arm} ({len(held)})" for arm, held in arms.items())]
    return [*markdown_table(head, rows), ""]


def _panels(result: Result) -> dict[str, dict[str, Group]]:
    panels: dict[str, dict[str, Group]] = {}
    for setting in dict.fromkeys(run["setting"] for run in result["runs"]):
        for question, first, arms in QUESTIONS:
            there = [group for group in groups(result, first) if group.setting == setting and group.runs]
            for group in sorted(there, key=lambda group: list(ARMS).index(group.arm)):
                if group.arm in arms:
                    title = f"{group.what}\n{question[0].lower()}{question[1:]}: to {first}"
                    panels.setdefault(title, {})[f"{group.arm} ({len(group.runs)})"] = group
    return panels


def _left(result: Result) -> list[str]:
    form = FORMS.get(result["config"]["form"])
    if form is None:
        return []
    done = {run["name"] for run in result["runs"]}
    left: dict[str, list[str]] = {}
    for job in form.jobs():
        if job.name not in done:
            left.setdefault(job.setting.what, []).append(f"{job.arm} {job.seed}")
    if not left:
        return []
    lines = [f"- {what}: {len(jobs)} runs, first {jobs[0]}" for what, jobs in left.items()]
    return ["## Not done yet (arm and seed)", "", *lines, ""]
