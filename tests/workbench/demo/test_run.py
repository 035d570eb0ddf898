"""The demonstration from end to end."""

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from PIL import Image

import exda_primitives as exda
from exda_primitives.workbench.data.degradations import degrade
from exda_primitives.workbench.demo.degradation import mixed
from exda_primitives.workbench.demo.measured import measured, sentences
from exda_primitives.workbench.demo.metrics import mean, score
from exda_primitives.workbench.demo.model import patch_file, tiny_restormer, weights
from exda_primitives.workbench.demo.photograph import LONGEST, photograph, photograph_of
from exda_primitives.workbench.demo.run import OWN, UNSEEN, Demo, run, steps

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def announced() -> list[str]:
    return []


@pytest.fixture(scope="module")
def photographs() -> list[torch.Tensor]:
    """Two crops of the packaged photograph, of different sizes."""
    whole = photograph()
    return [whole[..., 64:256, 128:384], whole[..., 256:448, 64:224]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, photographs: list[torch.Tensor], announced: list[str]) -> Demo:
    return run(tmp_path_factory.mktemp("demo") / "sheet.png", photographs, on_step=announced.append)


def test_patching_leaves_the_output_unchanged(demo: Demo) -> None:
    assert len(demo.report.matches) == 8
    # The host's own rounding error is 1.2e-5 here, the patched network's 4e-7, since it adds up strips of pixels.
    assert demo.unchanged <= 2e-5


def test_the_patch_restores_what_the_host_cannot(demo: Demo) -> None:
    degraded, host, patched = (demo.scores[title][UNSEEN] for title in ("degraded", "host", "host, patched"))
    assert abs(host.psnr - degraded.psnr) < 4
    # On whole photographs it is 10 dB.
    assert patched.psnr > max(host.psnr, degraded.psnr) + 4
    assert demo.scores["host"][OWN].psnr > demo.scores["degraded"][OWN].psnr + 2


def test_figures_are_means_over_the_photographs(demo: Demo, photographs: list[torch.Tensor]) -> None:
    low = [score(degrade(clean, "low", seed), clean) for seed, clean in enumerate(photographs)]
    own = [score(mixed(clean, torch.Generator().manual_seed(seed)), clean) for seed, clean in enumerate(photographs)]
    assert demo.scores["degraded"] == {UNSEEN: mean(low), OWN: mean(own)}


def test_unpatching_gives_the_host_back(demo: Demo) -> None:
    assert demo.given_back


def test_every_step_is_announced(demo: Demo, announced: list[str]) -> None:
    assert len(announced) == steps(2)
    assert min(demo.seconds, demo.fused_seconds) > 0


def test_the_sheet_has_a_row_for_each_photograph(demo: Demo) -> None:
    with Image.open(demo.image) as image:
        assert image.width >= 4 * 256
        assert 2 * 192 < image.height < 2 * 192 + 200


def test_the_patch_is_of_this_host_and_small() -> None:
    assert patch_file().stat().st_size < 200_000
    host = tiny_restormer()
    host.load_state_dict(weights("host"))
    exda.load(host, patch_file())
    with torch.no_grad():
        host.patch_embed.proj.weight.mul_(1.1)
    exda.unpatch(host)
    with pytest.raises(exda.CheckpointError, match="host"):
        exda.load(host, patch_file())


def test_the_packaged_figures_are_those_of_the_results() -> None:
    patch, form = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("demo_patch", "adaptation"))
    found = measured()
    assert found["psnr"] == {title: patch["psnr"][title] for title in found["psnr"]}
    assert found["photographs"] == patch["photographs"]
    arms = {"LoRA of equal size": "frozen, LoRA", "training the whole network": "host"}
    for said, arm in arms.items():
        runs = [run for run in form["runs"] if (run["setting"], run["arm"]) == ("low", arm)]
        of_seeds = [sum(each) / len(each) for each in (run["scores"]["low"]["psnr"] for run in runs)][: found["seeds"]]
        assert found["others"][said] == pytest.approx(sum(of_seeds) / len(of_seeds), abs=1e-3)
    first, second = sentences(found)
    assert f"{patch['psnr']['host with the patch']['low light']:.1f} dB" in first
    assert "LoRA of equal size" in second


def test_a_users_photograph_is_scaled_and_cropped(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1207), (200, 10, 10)).save(tmp_path / "large.jpg")
    assert photograph_of(tmp_path / "large.jpg").shape == (1, 3, 408, LONGEST)
    Image.new("L", (70, 90)).save(tmp_path / "grey.png")
    assert photograph_of(tmp_path / "grey.png").shape == (1, 3, 88, 64)
    Image.new("RGB", (60, 90)).save(tmp_path / "small.png")
    with pytest.raises(exda.ImageError, match=r"small\.png: 60 x 90 pixels; expected at least 64"):
        photograph_of(tmp_path / "small.png")
    (tmp_path / "none.png").write_text("nothing")
    with pytest.raises(exda.ImageError, match=r"none\.png is no image"):
        photograph_of(tmp_path / "none.png")


def test_all_files_are_in_the_package() -> None:
    names = {each.name for each in (resources.files("exda_primitives.workbench.demo") / "data").iterdir()}
    assert {"host.safetensors", "low_light.safetensors", "measured.json", "kingfisher.png", "CREDITS.md"} <= names


def test_the_demo_page_has_the_figures() -> None:
    found = json.loads((RESULTS / "demo_patch.json").read_text())["psnr"]
    rows = [f"| {title} | {' | '.join(f'{value:.2f}' for value in row.values())} |" for title, row in found.items()]
    assert "\n".join(rows) in (RESULTS.parents[1] / "docs" / "demo.md").read_text()
