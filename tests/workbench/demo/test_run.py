"""The demonstration from end to end."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.demo.metrics import score
from exda_primitives.workbench.demo.photograph import photograph
from exda_primitives.workbench.demo.run import STEPS, Demo, run


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> Demo:
    return run(tmp_path_factory.mktemp("demo") / "sheet.png", on_step=steps.append)


def test_patching_leaves_the_output_unchanged(demo: Demo) -> None:
    assert len(demo.report.matches) == 8
    # The host's own distance from float64 is 1.2e-5 there, the patched network's 4e-7: strips of pixels round less.
    assert demo.unchanged <= 2e-5


def test_both_models_restore(demo: Demo) -> None:
    degraded = demo.scores["degraded"]
    for title in ("host", "patched, trained"):
        score = demo.scores[title]
        # Measured: more than 4 dB and 0.2; half of that would be a broken weight file.
        assert score.psnr > degraded.psnr + 2
        assert score.ssim > degraded.ssim + 0.1


def test_unpatching_gives_the_host_back(demo: Demo) -> None:
    assert demo.given_back
    assert demo.scores["unpatched, the host's weights"] == demo.scores["host"]


def test_every_step_is_announced(demo: Demo, steps: list[str]) -> None:
    assert len(steps) == STEPS


def test_the_image_holds_five_panels(demo: Demo) -> None:
    with Image.open(demo.image) as image:
        assert image.width >= 5 * 512
        assert 512 < image.height < 600


def test_the_degradation_depends_on_the_seed_alone(demo: Demo, tmp_path: Path) -> None:
    clean = photograph()
    other = run(tmp_path / "1.png", seed=1)
    for seed, found in ((0, demo), (1, other)):
        assert found.scores["degraded"] == score(mixed(clean, torch.Generator().manual_seed(seed)), clean)
    assert other.scores["degraded"] != demo.scores["degraded"]
