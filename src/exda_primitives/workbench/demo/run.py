"""Runs the demo: a trained network fails on what it never saw; patched, with a small file loaded, it restores that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ...checkpoints import load
from ...files import atomic_write
from ...fusion import fuse, unfuse
from ...patching import Report, is_patched, patch, unpatch
from ..data.degradations import degrade
from ..shared.sheets import sheet
from .degradation import mixed
from .metrics import Score, largest_difference, mean, score
from .model import patch_file, tiny_restormer, weights

UNSEEN, OWN = "low light", "haze, rain, noise"
"""The degradation that the patch was trained on, and the host's own."""


@dataclass(frozen=True)
class Demo:
    """The results of the demo.

    Attributes:
        scores: row title -> degradation -> mean PSNR and SSIM over the photographs.
        report: what ``patch`` returned.
        unchanged: max |difference| between the host's output and the patched model's before the file is loaded.
        given_back: whether ``unpatch`` brought back the very same modules and the host's output, bit for bit.
        seconds: seconds that the patched network takes for the first photograph.
        fused_seconds: the same with its blocks fused.
        image: path of the written image.
    """

    scores: dict[str, dict[str, Score]]
    report: Report
    unchanged: float
    given_back: bool
    seconds: float
    fused_seconds: float
    image: Path


def steps(photographs: int) -> int:
    """Returns the number of steps that ``run`` announces."""
    return 2 * photographs + 3


def run(
    out: Path, photographs: Sequence[Tensor], seed: int = 0, on_step: Callable[[str], None] = lambda _: None
) -> Demo:
    """Runs the demo on the CPU, which takes about three seconds for each photograph of 512 x 512 pixels.

    Args:
        out: path of the image to write; its ending decides the format.
        photographs: clean images (1, 3, H, W) in [0, 1], sides multiples of 8.
        seed: seed of the degradations.
        on_step: called with a title before each of the ``steps``.

    Returns:
        Scores, checks, times and the patch report.
    """
    degraded = [_degraded(clean, seed + index) for index, clean in enumerate(photographs)]
    model = tiny_restormer().eval()
    host_weights = weights("host")
    model.load_state_dict(host_weights)
    modules = list(model.modules())
    by_host = _restored(model, degraded, on_step, "restoring with the host")

    on_step("patching")
    report = patch(model)
    first = degraded[0][UNSEEN]
    unchanged = largest_difference(_restore(model, first), by_host[0][UNSEEN])

    on_step("loading the patch")
    load(model, patch_file())
    by_patch = _restored(model, degraded, on_step, "restoring with the patch")
    seconds = _seconds(model, first)
    fuse(model)
    fused_seconds = _seconds(model, first)
    unfuse(model)

    on_step("unpatching, drawing")
    unpatch(model)
    same = all(a is b for a, b in zip(model.modules(), modules, strict=True)) and not is_patched(model)
    given_back = same and torch.equal(_restore(model, first), by_host[0][UNSEEN])
    results = {"degraded": degraded, "host": by_host, "host, patched": by_patch}
    scores = {
        title: {
            name: mean([score(image[name], clean) for image, clean in zip(images, photographs, strict=True)])
            for name in (UNSEEN, OWN)
        }
        for title, images in results.items()
    }
    rows = []
    for index, clean in enumerate(photographs):
        shown = {title: images[index][UNSEEN] for title, images in results.items()}
        captions = {f"{title}: {score(image, clean).psnr:.1f} dB": image for title, image in shown.items()}
        rows.append({**captions, "clean": clean})
    page = sheet(rows)
    with atomic_write(out) as partial:
        # PNG ignores the quality; JPEG's default quality has visible artefacts.
        page.save(partial, format=Image.registered_extensions()[out.suffix.lower()], quality=90)
    return Demo(scores, report, unchanged, given_back, seconds, fused_seconds, out)


def _degraded(clean: Tensor, seed: int) -> dict[str, Tensor]:
    return {UNSEEN: degrade(clean, "low", seed), OWN: mixed(clean, torch.Generator().manual_seed(seed))}


def _restored(
    model: nn.Module, degraded: Sequence[dict[str, Tensor]], on_step: Callable[[str], None], title: str
) -> list[dict[str, Tensor]]:
    found = []
    for images in degraded:
        on_step(title)
        found.append({name: _restore(model, image) for name, image in images.items()})
    return found


@torch.no_grad()
def _restore(model: nn.Module, degraded: Tensor) -> Tensor:
    restored: Tensor = model(degraded)
    return restored


def _seconds(model: nn.Module, image: Tensor) -> float:
    """Seconds of a forward pass, the quicker of two: the first one may allocate."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        _restore(model, image)
        found.append(time.perf_counter() - start)
    return min(found)
