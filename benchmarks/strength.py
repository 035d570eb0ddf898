"""Measure whether global spatial tokens tell how strong a degradation is, by linear probes.

Every photograph is degraded once by each degradation, with a strength drawn evenly from its usual range. A ridge
regression predicts the strength from features of the demo's trained network; R2 is that of photographs that the
regression has not seen. The controls are the same features of an untrained network, the features of the host, which has
no tokens, and features of the input itself. Writes ``strength.json`` and ``strength.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from claims.verdicts import gain
from machine import machine
from restore_seam import networks as demo_networks
from rich.console import Console
from rich.progress import track
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from written import write

import exda_primitives as exda
from exda_primitives.ops.precision import unit_divisor
from exda_primitives.ops.reference.tokens import token_maps
from exda_primitives.ops.terms import projected
from exda_primitives.workbench.data import open_images
from exda_primitives.workbench.data.degradations import gaussian_noise, haze, low_light, motion_blur, rain, snow
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.inspection.attentions import attentions
from exda_primitives.workbench.inspection.collect import Call, collect
from exda_primitives.workbench.inspection.embeddings import pooled_output, pooled_tokens
from exda_primitives.workbench.shared.crops import centre
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

RESULTS = Path(__file__).parent / "results"
FOLDS = 5
LEVELS = 16
"""Quantiles of each channel of the input."""
PENALTIES = tuple(10.0**power for power in range(-1, 6))
"""Penalties of the ridge regression; the best on the photographs that it learns from is taken."""

Degraded = Callable[[Tensor, torch.Generator, float], Tensor]
STRENGTHS: Mapping[str, tuple[str, tuple[float, float], Degraded]] = {
    "noise": ("sigma", (5.0, 50.0), lambda x, by, value: gaussian_noise(x, by, sigma=value)),
    "rain": ("density", (0.005, 0.02), lambda x, by, value: rain(x, by, density=value)),
    "haze": ("beta", (1.0, 2.0), lambda x, by, value: haze(x, by, beta=value)),
    "snow": ("density", (0.005, 0.02), lambda x, by, value: snow(x, by, density=value)),
    "low light": ("gamma", (2.0, 3.0), lambda x, by, value: low_light(x, by, gamma=value)),
    "motion blur": ("length", (8.0, 24.0), lambda x, by, value: motion_blur(x, by, length=value)),
}
"""Degradation -> its strength, the usual range of it, and how it is applied. The networks were trained on the first
three, mixed."""

console = Console()


def token_rows(call: Call) -> Tensor:
    """Returns the rows of the attention in which tokens are the queries, without the gate: (h * K * (c + K),)."""
    terms, (x,) = call.attention.terms(), call.inputs
    heads = terms.temperature.shape[-3]
    g = token_maps(x, heads, terms.tokens).flatten(3)
    k = projected(x, terms.qkv).chunk(3, dim=1)[1].unflatten(1, (heads, -1)).flatten(3)
    # K* = [k; G]; rows of unit length over the pixels; softmax(temperature * G K*^T).
    k = torch.cat([k, g], dim=2)
    logits = terms.temperature * (g / unit_divisor(g)) @ (k / unit_divisor(k)).transpose(-2, -1)
    return logits.softmax(-1).flatten()


FEATURES = {
    "tokens' maps": ("exda", pooled_tokens),
    "tokens' rows": ("exda", token_rows),
    "outputs": ("exda", pooled_output),
    "host: outputs": ("host", pooled_output),
    "untrained: tokens' maps": ("untrained", pooled_tokens),
    "untrained: tokens' rows": ("untrained", token_rows),
    "untrained: outputs": ("untrained", pooled_output),
}
"""Title -> network, and what is read of each of its attentions."""
INPUT = "input"


def input_features(image: Tensor) -> Tensor:
    """Returns quantiles of each channel, and standard deviations of the differences of neighbouring pixels."""
    quantiles = torch.quantile(image.flatten(1), torch.linspace(0, 1, LEVELS), dim=1)
    differences = [torch.diff(image, dim=dim).flatten(1).std(1) for dim in (1, 2)]
    return torch.cat([quantiles.flatten(), image.flatten(1).std(1), *differences])


def networks(seed: int) -> dict[str, nn.Module]:
    """Returns the demo's networks, and one like the patched one that was not trained."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = tiny_restormer().eval()
        exda.patch(untrained, init="paper")
    return {**demo_networks(), "untrained": untrained}


def features(images: Sequence[Tensor], nets: Mapping[str, nn.Module]) -> dict[str, np.ndarray]:
    """Returns title -> (images, features)."""
    found = {INPUT: torch.stack([input_features(image) for image in images])}
    for name, net in nets.items():
        wanted = {title: read for title, (of, read) in FEATURES.items() if of == name}

        def read_all(call: Call, wanted: Mapping[str, Callable[[Call], Tensor]] = wanted) -> Tensor:
            # One run of the network for all of its features; NaN fills the shorter rows.
            read_of = [read(call).float() for read in wanted.values()]
            return pad_sequence(read_of, batch_first=True, padding_value=torch.nan)

        calls = collect(net, images, attentions(net), read_all)
        for index, title in enumerate(wanted):
            parts = [torch.stack([row[index][~row[index].isnan()] for row in rows]) for rows in calls.values()]
            found[title] = torch.cat(parts, dim=1)
    return {title: points.double().numpy() for title, points in found.items()}


def told(points: np.ndarray, strengths: np.ndarray, seed: int) -> float:
    """Returns R2 of the strengths that a ridge regression predicts for photographs that it has not seen."""
    probe = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    return float(r2_score(strengths, cross_val_predict(probe, points, strengths, cv=folds)))


def main(
    images: Annotated[Path, typer.Option(help="Photographs: a folder, zip or npz.", exists=True)],
    out: Annotated[Path, typer.Option(file_okay=False)] = RESULTS,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    crop: Annotated[int, typer.Option(help="Side in pixels of the middle that is taken.", min=8)] = 128,
) -> None:
    """Measure and write both files."""
    clean = [centre(image, crop) for image in open_images(images)]
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        nets = networks(seed)
        for place, degradation in enumerate(track(STRENGTHS, f"seed {seed}", console=console)):
            _, (low, high), degraded = STRENGTHS[degradation]
            drawn = np.random.default_rng([seed, place]).uniform(low, high, len(clean))
            made = [
                degraded(image, torch.Generator().manual_seed(1000 * seed + index), float(drawn[index]))
                for index, image in enumerate(clean)
            ]
            for title, points in features(made, nets).items():
                row = {"seed": seed, "degradation": degradation, "features": title, "r2": told(points, drawn, seed)}
                rows.append({**row, "number": points.shape[1]})
    result = {
        "command": f"python benchmarks/strength.py --images {images.name} --seeds {seeds} --crop {crop}",
        "machine": machine(),
        "photographs": len(clean),
        "crop": crop,
        "seeds": seeds,
        "rows": rows,
    }
    write("strength", result, markdown, out)


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the table as Markdown."""
    titles = list(dict.fromkeys(row["features"] for row in result["rows"]))
    head = ["features", "number", *(f"{name} ({STRENGTHS[name][0]})" for name in STRENGTHS)]
    body = []
    for title in titles:
        mine = [row for row in result["rows"] if row["features"] == title]
        body.append([title, str(mine[0]["number"]), *(_cell(mine, name) for name in STRENGTHS)])
    return markdown_page(
        "Do tokens tell how strong a degradation is?",
        "R2 of a ridge regression from features to the strength, on photographs that it has not seen: "
        f"{FOLDS} folds of {result['photographs']} photographs, the middle {result['crop']} x {result['crop']} pixels. "
        "1 is perfect, 0 no better than the mean. Mean over seeds, with Student's 95% interval; a seed determines the "
        "strengths, the degradations, the folds and the weights of the untrained network.",
        "The network is the demo's, trained on haze, rain and noise. Maps: 16 quantiles of each token's map. Rows: the "
        "attention of each token to all channels. Outputs: mean and standard deviation of each channel of every "
        f"attention. Input: {LEVELS} quantiles of each channel, standard deviations of its pixels and of their "
        "differences to their neighbours.",
        markdown_table(head, body),
        provenance(result),
    )


def _cell(rows: Sequence[Mapping[str, Any]], degradation: str) -> str:
    found = gain([row["r2"] for row in rows if row["degradation"] == degradation])
    interval = f" ({found.low:.2f} to {found.high:.2f})" if np.isfinite(found.high) else ""
    return f"{found.mean:.2f}{interval}"


if __name__ == "__main__":
    typer.run(main)
