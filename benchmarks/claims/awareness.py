"""The claim that tokens separate degradations in feature space: from the quality benchmark and ``exda inspect``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.inspection.run import ALL
from exda_primitives.workbench.shared.results import Result, read, spread

from .claim import POINTS, Claim, Finding, Row, Source
from .files import source
from .quality import CONTROL, Measure, Run, budget_of, rows_of
from .verdicts import EFFECT, effect, gain, size

ARMS = ("tokens", "both, identity", "both, paper")
"""The arms of the quality benchmark that have tokens."""

SHARED = ("images_sha256", "pictures", "labels", "labels_from", "size", "degradation_seed", "blocks")
"""What two inspections must have in common to be compared."""


def _pairs(folder: Path) -> Iterator[tuple[Path, Result, Path, Result]]:
    """Yields pairs of inspections of the same images: path and result without tokens, path and result with tokens."""
    paths = sorted([*folder.glob("inspect*.json"), *folder.glob("*/inspect*.json")])
    found = [(path, read(path, "inspect")) for path in paths]
    hosts = [each for each in found if each[1]["config"]["exda"] is None]
    ours = [each for each in found if (each[1]["config"]["exda"] or {}).get("tokens")]
    for host in hosts:
        for other in ours:
            if all(host[1]["config"][key] == other[1]["config"][key] for key in SHARED):
                yield *host, *other


def _scores(path: Path, result: Result, score: str) -> dict[int, float]:
    """Returns the score of clustering all blocks' outputs together, by k-means seed."""
    runs: list[dict[str, Any]] = [row for row in result["runs"] if row["measure"] == "clusters"]
    found = {row["seed"]: row[score] for row in runs if (row["of"], row["block"]) == ("outputs", ALL)}
    if not found:
        raise ConfigError(
            f"{path}: has no clusters of the outputs of all blocks; inspect again without --block or --of"
        )
    return found


def _aware(score: str, figure: float, folder: Path) -> Finding | None:
    inspected, trained = _inspected(score, figure, folder), _trained(score, figure, folder)
    parts = [part for part in (trained, inspected) if part.rows]
    if not parts:
        return None
    return Finding(
        ("without", "with tokens", POINTS.title, "over the wider host"),
        [row for part in parts for row in part.rows],
        "; ".join(part.budget for part in parts),
        [source for part in parts for source in part.sources],
        [note for part in parts for note in part.notes],
    )


def _trained(score: str, figure: float, folder: Path) -> Finding:
    """Compares networks of the quality benchmark, with one pair per training seed."""

    def mean(run: Run) -> float | None:
        found = run.get("told_apart")
        return spread(found[score]).mean if found else None

    measure = Measure(mean, POINTS, 2, figure)
    rows, sources, budgets = [], [], []
    for path in sorted(folder.glob("quality*.json")):
        result = read(path, "quality")
        found = [
            replace(row, condition=f"{arm}: {row.condition}")
            for arm in ARMS
            for row in rows_of(arm, "steps", result, measure)
        ]
        if found:
            rows += found
            sources.append(source(path, folder, result))
            budgets.append(budget_of(result))
    note = (
        "The score says how well k-means clusters of the outputs of all attentions agree with the true degradations. "
        "For the quality benchmark's networks, each pair is one training seed, and its score is the mean over runs of "
        "k-means. " + CONTROL
    )
    return Finding((), rows, "; ".join(budgets), sources, (note,))


def _inspected(score: str, figure: float, folder: Path) -> Finding:
    """Compares networks that ``exda inspect`` inspected, with one pair per k-means seed."""
    rows: list[Row] = []
    sources: dict[Path, Source] = {}
    budget = ""
    for host_path, host, path, ours in _pairs(folder):
        without, with_tokens = _scores(host_path, host, score), _scores(path, ours, score)
        seeds = sorted(without.keys() & with_tokens.keys())
        if not seeds:
            continue
        # All runs of k-means compare the same two networks: one repeat.
        more = gain([with_tokens[seed] - without[seed] for seed in seeds], repeats=1)
        verdict = effect(more, {})
        cells = [_spread(without), _spread(with_tokens), POINTS.interval(more), "-"]
        config = ours["config"]
        title = f"{config['model']} against {host['config']['model']}: {', '.join(config['labels'])}"
        rows.append(Row(title, cells, more, verdict, size(verdict, more, figure)))
        sources |= {each: source(each, folder, result) for each, result in ((host_path, host), (path, ours))}
        budget = (
            f"1 network of each kind, {config['pictures']} images of {config['size']} pixels, {len(seeds)} runs of "
            "k-means"
        )
    notes = (
        "For a pair of inspected networks, the interval covers runs of k-means only: it says nothing about how much "
        "another training would differ, so the rule counts it as one repeat. The network with tokens also has the "
        "non-linear value.",
    )
    return Finding((), rows, budget, list(sources.values()), notes)


def _spread(values: dict[int, float]) -> str:
    mean, deviation, n = spread(list(values.values()))
    return f"{mean:.2f}" + (f" ± {deviation:.2f} ({n})" if deviation is not None else "")


def _claim(score: str, without: float, with_tokens: float) -> Claim:
    title = score.upper()
    return Claim(
        score,
        f"Global tokens make features tell degradations apart: {title}",
        f"{title} {without:.2f} without, {with_tokens:.2f} with tokens: {with_tokens - without:+.2f}",
        round(with_tokens - without, 2),
        POINTS,
        EFFECT,
        "exda inspect demo-host --images PHOTOGRAPHS --out benchmarks/results/inspect_host; "
        "exda inspect demo --images PHOTOGRAPHS --out benchmarks/results/inspect_demo",
        partial(_aware, score, round(with_tokens - without, 2)),
    )


CLAIMS = (_claim("nmi", 0.71, 0.88), _claim("ari", 0.56, 0.89))
