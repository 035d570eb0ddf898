"""Measures the demo's weights on unseen photographs and writes the results as JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from demo_recipe import (
    BATCH,
    GRADIENT_NORM,
    PATCH,
    PEAK_LEARNING_RATE,
    WARM_UP_STEPS,
    WEIGHT_DECAY,
    Phase,
    Run,
    Stream,
    console,
    load_model,
    photo_of,
)
from machine import machine_line
from torch import Tensor

from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.demo.metrics import score
from exda_primitives.workbench.demo.photograph import photograph
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table

RESULTS = Path(__file__).parent / "results"


@torch.no_grad()
def evaluate(run: Run, testing: Tensor, phases: Sequence[Phase]) -> dict[str, Any]:
    """Measures the degraded input and the models on the held-out crops and on the demo's photograph.

    Args:
        run: gives the seed, the device and the checkpoints.
        testing: held-out crops (N, 3, H, W) uint8.
        phases: the phases whose checkpoints are measured.

    Returns:
        ``held_out`` (mean over crops) and ``photograph``: {"degraded" or phase: {"psnr": dB, "ssim": ...}};
        ``held_out_psnr``: {"degraded" or phase: dB of each crop}.
    """
    models = {phase.value: load_model(run, phase).eval() for phase in phases}
    images = [*(crop[None].float() / 255 for crop in testing), photograph()]
    scores: dict[str, list[tuple[float, float]]] = {"degraded": [], **{name: [] for name in models}}
    for index, clean in enumerate(images):
        degraded = mixed(clean, run.generator(Stream.EVALUATE, index))
        scores["degraded"].append(score(degraded, clean))
        for name, model in models.items():
            scores[name].append(score(model(degraded.to(run.device)).cpu(), clean))

    def mean(values: Sequence[tuple[float, float]]) -> dict[str, float]:
        psnr, ssim = (sum(column) / len(values) for column in zip(*values, strict=True))
        return {"psnr": round(psnr, 3), "ssim": round(ssim, 4)}

    return {
        "held_out": {name: mean(values[:-1]) for name, values in scores.items()},
        "photograph": {name: mean(values[-1:]) for name, values in scores.items()},
        "held_out_psnr": {name: [round(psnr, 3) for psnr, _ in values[:-1]] for name, values in scores.items()},
    }


def markdown(result: dict[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    comparison, phases = result["exda_minus_host"], result["phases"]
    host, ours = (phases[phase.value] for phase in (Phase.HOST, Phase.EXDA))
    trained = [[name, f"{of['parameters']:,}", str(of["steps"]), f"{of['seconds']:.0f}"] for name, of in phases.items()]
    return markdown_page(
        "Demo weights: equal further training with and without ExDA",
        table(result),
        f"ExDA minus host on the {comparison['crops']} held-out crops: {comparison['mean_psnr_difference']:+.3f} dB "
        f"(standard error {comparison['standard_error']:.3f} over crops), better on "
        f"{comparison['crops_where_exda_is_better']}. One seed ({result['seed']}): the error over crops says nothing "
        "about how much another training run would differ.",
        markdown_table(["phase", "parameters", "steps", "wall time (s)"], trained),
        f"ExDA adds {ours['parameters'] - host['parameters']:,} parameters "
        f"({100 * (ours['parameters'] / host['parameters'] - 1):.1f} %). "
        f"Trained on {ours['device']}: {machine_line(ours['machine'])}",
        f"Command: `{result['command']}`",
    )


def table(measured: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Returns the lines of a Markdown table with one row each for degraded, pretrain, host and exda."""
    titles = {
        "degraded": "degraded input",
        Phase.PRETRAIN.value: "host, pre-trained",
        Phase.HOST.value: "host, trained further",
        Phase.EXDA.value: "host + ExDA, trained further",
    }
    rows = []
    for name, title in titles.items():
        places = [measured[place][name] for place in ("held_out", "photograph")]
        rows.append([title, *(cell for of in places for cell in (f"{of['psnr']:.2f}", f"{of['ssim']:.4f}"))])
    head = ["", "held-out PSNR (dB)", "held-out SSIM", "photograph PSNR (dB)", "photograph SSIM"]
    return markdown_table(head, rows)


def report(run: Run, testing: Tensor, testing_names: Sequence[str], command: str) -> None:
    """Evaluates all three models and writes ``demo_weights.json`` and ``demo_weights.md``."""
    trained = (Phase.PRETRAIN, Phase.HOST, Phase.EXDA)
    records = {phase.value: run.record(phase) for phase in trained}
    measured = evaluate(run, testing, trained)
    pairs = list(
        zip(
            measured["held_out_psnr"][Phase.EXDA.value],
            measured["held_out_psnr"][Phase.HOST.value],
            strict=True,
        )
    )
    differences = torch.tensor([ours - theirs for ours, theirs in pairs])
    comparison = {
        "mean_psnr_difference": round(differences.mean().item(), 3),
        "standard_error": round((differences.std() / math.sqrt(len(pairs))).item(), 3),
        "crops_where_exda_is_better": int((differences > 0).sum()),
        "crops": len(pairs),
    }
    result = {
        "command": command,
        "seed": run.seed,
        "data_sha256": run.data_sha256,
        "training_crops": len(run.train),
        "held_out_photographs": sorted({photo_of(name) for name in testing_names}),
        "settings": {
            "batch": BATCH,
            "patch": PATCH,
            "optimiser": "AdamW",
            "loss": "L1",
            "schedule": f"{WARM_UP_STEPS} steps of warm-up, then cosine to 0, anew for each phase",
            "peak_learning_rate": PEAK_LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "gradient_norm": GRADIENT_NORM,
        },
        "phases": {name: asdict(record) for name, record in records.items()},
        "exda_minus_host": comparison,
        **measured,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "demo_weights.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "demo_weights.md").write_text(markdown(result))
    console.print(markdown(result), markup=False, soft_wrap=True)
