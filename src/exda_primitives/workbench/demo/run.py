"""Runs the demo on one photograph: degrade, restore, patch, restore again with trained ExDA weights, unpatch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ...files import atomic_write
from ...patching import Report, is_patched, patch, unpatch
from ...primitives import ExDAModule
from ..shared.overlay import over_grey
from .degradation import mixed
from .metrics import Score, largest_difference, score
from .model import tiny_restormer, weights
from .photograph import photograph
from .sheet import sheet

STEPS = 7
"""Number of steps that ``run`` announces."""

# The refinement stage has the highest resolution: a token's map is easiest to read there.
SHOWN_TOKEN = "refinement.0.attn"


@dataclass(frozen=True)
class Demo:
    """The results of the demo.

    Attributes:
        scores: row title -> PSNR and SSIM against the clean photograph.
        report: what ``patch`` returned.
        unchanged: max |difference| between the host's output and the patched model's at identity init.
        given_back: whether ``unpatch`` brought back the very same modules and, with the host's weights, exactly the
            host's output.
        image: path of the written image.
    """

    scores: dict[str, Score]
    report: Report
    unchanged: float
    given_back: bool
    image: Path


def run(out: Path, seed: int = 0, on_step: Callable[[str], None] = lambda _: None) -> Demo:
    """Runs the demo on the CPU, which takes about ten seconds.

    Args:
        out: path of the image to write; its ending decides the format.
        seed: seed of the degradation.
        on_step: called with a title before each of the ``STEPS`` steps.

    Returns:
        Scores, checks and the patch report.
    """
    on_step("degrading the photograph: haze, rain, noise")
    clean = photograph()
    degraded = mixed(clean, torch.Generator().manual_seed(seed))

    on_step("restoring with the host")
    model = tiny_restormer().eval()
    host_weights = weights("host")
    model.load_state_dict(host_weights)
    modules = list(model.modules())
    by_host = _restore(model, degraded)

    on_step("patching")
    report = patch(model)

    on_step("restoring with the patched model, as it starts")
    as_it_starts = _restore(model, degraded)

    on_step("restoring with trained ExDA weights")
    model.load_state_dict(weights("exda"))
    by_exda, token_map = _restore_and_look(model, degraded)

    on_step("unpatching")
    unpatch(model)
    same_modules = all(a is b for a, b in zip(model.modules(), modules, strict=True))
    model.load_state_dict(host_weights)
    given_back = _restore(model, degraded)

    on_step("comparing and drawing")
    scores = {
        "degraded": score(degraded, clean),
        "host": score(by_host, clean),
        "patched, as it starts": score(as_it_starts, clean),
        "patched, trained": score(by_exda, clean),
        "unpatched, the host's weights": score(given_back, clean),
    }
    images = {"degraded": degraded, "host": by_host, "patched, trained": by_exda}
    captions = {f"{title}: {scores[title].psnr:.2f} dB": image for title, image in images.items()}
    page = sheet({**captions, "clean": clean, "where a token looks": over_grey(token_map, clean)})
    with atomic_write(out) as partial:
        # PNG ignores the quality; JPEG's default quality has visible artefacts.
        page.save(partial, format=Image.registered_extensions()[out.suffix.lower()], quality=90)
    same = same_modules and torch.equal(given_back, by_host) and not is_patched(model)
    return Demo(scores, report, largest_difference(as_it_starts, by_host), same, out)


@torch.no_grad()
def _restore(model: nn.Module, degraded: Tensor) -> Tensor:
    restored: Tensor = model(degraded)
    return restored


def _restore_and_look(model: nn.Module, degraded: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []

    def look(attention: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(attention, ExDAModule)
        assert attention.token is not None
        # The compact map of the only image, the first head and the first token.
        seen.append(attention.token.maps(inputs[0])[0, 0, 0])

    handle = model.get_submodule(SHOWN_TOKEN).register_forward_pre_hook(look)
    restored = _restore(model, degraded)
    handle.remove()
    return restored, seen[0]
