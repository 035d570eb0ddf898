"""Train the patch that the demo loads: the demo's host, frozen, learns to see in low light by ExDA's parameters alone.

The run is that of the adaptation form of `benchmarks.continued` in which the host is frozen and both primitives train,
with seed 0 and the learning rate that the form found. Afterwards the patched network is measured on whole photographs
of which it has seen none, in low light and in the haze, rain and noise that the host was trained on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
import typer
from machine import machine
from rich.console import Console
from torch import Tensor

ROOT = Path(__file__).parents[1]
# Run as a script, Python looks for modules beside it alone.
sys.path.insert(0, str(ROOT))

import exda_primitives as exda  # noqa: E402
from benchmarks.continued.configs import Starts, configuration  # noqa: E402
from benchmarks.continued.forms import ADAPTATION  # noqa: E402
from exda_primitives.workbench.data import degrade, open_images  # noqa: E402
from exda_primitives.workbench.demo.degradation import mixed  # noqa: E402
from exda_primitives.workbench.demo.metrics import score  # noqa: E402
from exda_primitives.workbench.training import prepare, train  # noqa: E402
from exda_primitives.workbench.training.folder import Folder  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT / "src" / "exda_primitives" / "workbench" / "demo" / "data"
ARM, SEED = "frozen, both", 0

console = Console()


def main(
    *,
    train_on: Annotated[Path, typer.Option("--train", exists=True, help="Zip or folder of clean crops.")],
    test_on: Annotated[Path, typer.Option("--test", exists=True, help="Folder of other photographs.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the run goes.")],
) -> None:
    """Train the patch, measure it on photographs, and put it into the package."""
    job = next(job for job in ADAPTATION.jobs() if (job.setting.name, job.arm, job.seed) == ("low", ARM, SEED))
    form = json.loads((RESULTS / "adaptation.json").read_text())
    rate = next(
        run["learning_rate"] for run in form["runs"] if (run["setting"], run["arm"], run["seed"]) == ("low", ARM, SEED)
    )
    host = DATA / "host.safetensors"
    config = configuration(ADAPTATION, job, str(train_on), Starts(host, host), {"learning_rate": rate})
    command = _command(train_on, test_on, out)
    train(prepare(config, out / "run", accelerator="cpu"), command=command)
    network = exda.models.create(checkpoint=Folder(out / "run").weights).eval()
    exda.save(network, DATA / "low_light.safetensors")
    photographs = open_images(test_on)
    result = {
        "kind": "demo_patch",
        "command": command,
        "machine": machine(),
        "config": {"arm": ARM, "seed": SEED, "learning_rate": rate, "recipe": dict(ADAPTATION.recipe)},
        "photographs": len(photographs),
        "bytes": (DATA / "low_light.safetensors").stat().st_size,
        "psnr": {
            "no network": measured(lambda image: image, photographs),
            "host": measured(exda.models.create(checkpoint=host).eval(), photographs),
            "host with the patch": measured(network, photographs),
        },
    }
    (RESULTS / "demo_patch.json").write_text(json.dumps(result, indent=1) + "\n")
    (DATA / "measured.json").write_text(json.dumps(summary(result, form), indent=1) + "\n")
    console.print_json(data=result["psnr"])


def summary(patch: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the demo says of the results.

    Args:
        patch: what this script measured.
        form: the adaptation form's result.
    """
    seeds = {arm: _scores(form, arm) for arm in OTHERS}
    repeats = min(len(each) for each in seeds.values())
    return {
        "photographs": patch["photographs"],
        "psnr": {title: patch["psnr"][title] for title in ("host", "host with the patch")},
        "others": {said: round(mean(seeds[arm][:repeats]), 3) for arm, said in OTHERS.items()},
        "seeds": repeats,
    }


def _scores(form: Mapping[str, Any], arm: str) -> list[float]:
    """Returns the arm's mean PSNR in low light, by seed."""
    runs = sorted(
        (run["seed"], run["scores"]["low"]["psnr"])
        for run in form["runs"]
        if (run["setting"], run["arm"]) == ("low", arm)
    )
    return [mean(psnr) for _, psnr in runs]


OTHERS = {
    "frozen, both": "ExDA's parameters alone (as here)",
    "frozen, LoRA": "LoRA of equal size",
    "host": "training the whole network",
    "both, identity": "training the whole patched network",
}
"""The form's arms that the demo names -> in its words."""


@torch.no_grad()
def measured(network: Callable[[Tensor], Tensor], photographs: Sequence[Tensor]) -> dict[str, float]:
    """Returns the mean PSNR in dB over photographs, for both degradations; photograph i is degraded with seed i."""
    found: dict[str, float] = {}
    for name, degraded in DEGRADED.items():
        scores = [score(network(degraded(clean[None], i)), clean[None]) for i, clean in enumerate(photographs)]
        found[name] = round(sum(each.psnr for each in scores) / len(scores), 3)
    return found


DEGRADED: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "low light": lambda clean, seed: degrade(clean, "low", seed),
    "haze, rain and noise": lambda clean, seed: mixed(clean, torch.Generator().manual_seed(seed)),
}
"""The degradation that is learnt, and the host's own."""


def _command(train_on: Path, test_on: Path, out: Path) -> str:
    # Names only: the result is published, and full paths would show the user's folders.
    return f"python benchmarks/demo_patch.py --train {train_on.name} --test {test_on.name} --out {out.name}"


if __name__ == "__main__":
    typer.run(main)
