"""exda evaluate."""

import csv
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.workbench.data.images import write_image
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app
from exda_primitives.models import Restormer
from exda_primitives.workbench.data import read_image
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.evaluation import PROTOCOLS, measure
from exda_primitives.workbench.restoration import Restorer, restore

HOST = Path(str(resources.files("exda_primitives.workbench.demo") / "data/host.safetensors"))


def run(out: Path, *arguments: object, checkpoint: Path = HOST, protocol: str = "restormer-y") -> Result:
    command = ["evaluate", str(checkpoint), "--protocol", protocol, "--device", "cpu", "--out", str(out)]
    return CliRunner().invoke(app, [*command, *map(str, arguments)], env={"COLUMNS": "300"})


def host() -> torch.nn.Module:
    model = tiny_restormer()
    model.load_state_dict(load_file(HOST))
    return model


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Path, Path]:
    for seed, name in enumerate(("a", "b")):
        write_image(tmp_path / "low" / f"{name}.png", 19, 23, seed=seed)
        write_image(tmp_path / "high" / f"{name}.png", 19, 23, seed=seed + 5)
    return tmp_path / "low", tmp_path / "high"


def test_pairs(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(tmp_path / "out", "--pairs", *pairs)
    assert result.exit_code == 0, result.output
    with (tmp_path / "out/evaluate.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line, name in zip(lines, ("a", "b"), strict=True):
        degraded, clean = (read_image(folder / f"{name}.png") for folder in pairs)
        expected = measure(restore(host(), degraded).image, clean, PROTOCOLS["restormer-y"])
        assert (float(line["psnr"]), float(line["ssim"])) == pytest.approx(expected)
        before = measure(degraded, clean, PROTOCOLS["restormer-y"])
        assert (float(line["degraded_psnr"]), float(line["degraded_ssim"])) == pytest.approx(before)
    found = json.loads((tmp_path / "out/evaluate.json").read_text())
    mean = sum(float(line["psnr"]) for line in lines) / 2
    assert found["runs"][0]["psnr"] == pytest.approx(mean)
    assert f"{mean:.2f}" in result.output
    assert found["config"]["network"]["architecture"] == "restormer"
    assert found["command"].split()[0] == "exda"
    assert "restormer-y" in (tmp_path / "out/evaluate.md").read_text()
    assert (tmp_path / "out/evaluate.png").read_bytes().startswith(b"\x89PNG")


def test_patched_and_in_tiles(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    model = host()
    exda.patch(model)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(0.2)
    exda.save(model, tmp_path / "exda.safetensors")
    exda.save(model, tmp_path / "whole.safetensors", whole=True)
    patched = run(tmp_path / "patched", "--pairs", *pairs, "--patch", tmp_path / "exda.safetensors")
    whole = run(tmp_path / "whole", "--pairs", *pairs, checkpoint=tmp_path / "whole.safetensors")
    plain = run(tmp_path / "plain", "--pairs", *pairs)
    tiled = run(tmp_path / "tiled", "--pairs", *pairs, "--tile", 16)
    assert [each.exit_code for each in (patched, whole, plain, tiled)] == [0, 0, 0, 0], patched.output
    assert "2 of 2 images were restored in tiles" in tiled.output
    one, two, three, four = (
        json.loads((tmp_path / name / "evaluate.json").read_text())["runs"][0]["psnr"]
        for name in ("patched", "whole", "plain", "tiled")
    )
    assert one == two
    assert len({one, three, four}) == 3


def test_clean_images_are_degraded_by_the_command(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "some.npz", images=random.integers(0, 256, (2, 20, 34, 3), np.uint8))
    arguments = ("--clean", tmp_path / "some.npz", "--degrade", "noise25", "--degrade", "haze")
    result = run(tmp_path / "out", *arguments, protocol="promptir")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out/evaluate.json").read_text())
    assert [(row["degradation"], row["pictures"]) for row in found["runs"]] == [
        ("noise25", 2),
        ("haze", 2),
        ("average", 4),
    ]
    assert {(each["height"], each["width"]) for each in found["pictures"]} == {(16, 32)}


def test_a_grey_network_takes_grey_images(tmp_path: Path) -> None:
    model = Restormer(inp_channels=1, out_channels=1, dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)
    torch.save(model.state_dict(), tmp_path / "grey.pth")
    write_image(tmp_path / "clean/a.png", 20, 20)
    arguments = ("--clean", tmp_path / "clean", "--degrade", "noise25")
    result = run(tmp_path / "out", *arguments, checkpoint=tmp_path / "grey.pth", protocol="restormer-noise")
    assert result.exit_code == 0, result.output


def test_a_benchmark(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("denoise/bsd68/a.png", "derain/Rain100L/input/r.png", "derain/Rain100L/target/r.png"):
        write_image(root / name, 16, 16)
    for name in ("dehaze/input/h_0.8_0.1.png", "dehaze/target/h.png"):
        write_image(root / name, 16, 16)
    arguments = ("--benchmark", "promptir-3", "--root", root)
    whole = run(tmp_path / "out", *arguments, protocol="promptir")
    assert whole.exit_code == 1
    assert "the published set has 68" in whole.output
    assert not (tmp_path / "out").exists()
    some = ("--partial", "--degradation", "rain", "--degradation", "noise25")
    result = run(tmp_path / "out", *arguments, *some, protocol="promptir")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out/evaluate.json").read_text())
    assert [row["degradation"] for row in found["runs"]] == ["noise25", "rain", "average"]
    assert found["config"]["source"]["benchmark"] == "promptir-3"


def test_weatherbench_is_two_folders(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(
        tmp_path / "out", "--benchmark", "weatherbench", "--partial", "--pairs", *pairs, protocol="weatherbench"
    )
    assert result.exit_code == 0, result.output
    assert "weather " in result.output
    result = run(tmp_path / "all", "--benchmark", "weatherbench", "--pairs", *pairs, protocol="weatherbench")
    assert result.exit_code == 1
    assert "the published set has 600" in result.output


def test_results_of_other_settings_are_kept(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(out, "--pairs", *pairs).exit_code == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    refused = run(out, "--pairs", *pairs, protocol="restormer-noise")
    assert refused.exit_code == 1
    assert "holds results of another protocol" in refused.output
    # Refused before the work, not after it.
    assert "restoring" not in refused.output
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert run(out, "--pairs", *pairs, "--overwrite", protocol="restormer-noise").exit_code == 0
    assert (out / "evaluate.json").read_bytes() != before[out / "evaluate.json"]


def test_an_interrupted_evaluation_resumes(
    pairs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored = Restorer.__call__
    calls: list[int] = []

    def interrupted(self: Restorer, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return restored(self, *arguments)

    monkeypatch.setattr(Restorer, "__call__", interrupted)
    first = run(tmp_path / "out", "--pairs", *pairs)
    assert first.exit_code == 130
    where = f"1 of 2 images are in {tmp_path}/out/evaluate.json"
    assert f"interrupted: {where}; the same command goes on there" in first.output
    second = run(tmp_path / "out", "--pairs", *pairs)
    assert second.exit_code == 0, second.output
    assert "evaluated before: 1 of 2" in second.output
    # The first image is not restored a second time.
    assert len(calls) == 3
    assert run(tmp_path / "at once", "--pairs", *pairs).exit_code == 0
    one, other = (json.loads((tmp_path / out / "evaluate.json").read_text()) for out in ("out", "at once"))
    assert one["pictures"] == other["pictures"]
    # All images are evaluated now: none is restored again.
    third = run(tmp_path / "out", "--pairs", *pairs)
    assert third.exit_code == 0
    assert "evaluated before: 2 of 2" in third.output
    assert len(calls) == 5


def test_changed_images_of_the_same_names_are_refused(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--pairs", *pairs).exit_code == 0
    write_image(pairs[0] / "b.png", 19, 23, seed=9)
    refused = run(tmp_path / "out", "--pairs", *pairs)
    assert refused.exit_code == 1
    assert "holds results of another set of images; give another folder, or --overwrite" in refused.output
    assert run(tmp_path / "out", "--pairs", *pairs, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda low, high: write_image(low / "b.png", 19, 24), "b (pairs): the degraded image has 19 x 24 pixels"),
        (lambda low, high: (low / "b.png").write_bytes(b"no"), "b.png is no image that can be read"),
        (lambda low, high: (low / "b.png").unlink(), "no degraded image of it"),
        (lambda low, high: [write_image(each / "b.png", 9, 9) for each in (low, high)], "b (pairs): 9 x 9 pixels"),
    ],
)
def test_bad_images_are_refused(spoil: object, complaint: str, pairs: tuple[Path, Path], tmp_path: Path) -> None:
    assert callable(spoil)
    spoil(*pairs)
    result = run(tmp_path / "out", "--pairs", *pairs)
    assert result.exit_code == 1
    assert complaint in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "one of --root, --pairs and --clean; found none"),
        (["--clean", "c", "--pairs", "a", "b"], "found --pairs and --clean"),
        (["--root", "r"], "a benchmark's name and --root go together"),
        (["--benchmark", "cdd11", "--clean", "c"], "a benchmark's name and --root go together"),
        (["--benchmark", "weatherbench", "--clean", "c"], "give --pairs"),
        (["--clean", "c"], "--clean and --degrade go together"),
        (["--pairs", "a", "b", "--degrade", "rain"], "--clean and --degrade go together"),
    ],
)
def test_conflicting_options_are_refused(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    result = run(tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--protocol", "psnr"], "no protocol is called 'psnr'"),
        (["--root", "missing", "--benchmark", "cdd12"], "no benchmark is called 'cdd12'"),
        (["--root", "missing", "--benchmark", "cdd11"], "is not a folder"),
        (["--clean", "missing", "--degrade", "rain"], "missing does not exist"),
    ],
)
def test_unknown_names_are_refused(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    source = arguments if arguments[0] != "--protocol" else [*arguments, "--pairs", "a", "b"]
    result = run(tmp_path / "out", *source)
    assert result.exit_code == 1
    assert complaint in result.output


def test_an_impossible_folder_is_refused_before_the_work(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(pairs[0] / "a.png" / "out", "--pairs", *pairs)
    assert result.exit_code == 1
    assert "cannot hold results" in result.output
    assert "restoring" not in result.output


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "clean/a.png", 16, 16)
    (tmp_path / "clean/b.heic").write_bytes(b"")
    result = run(tmp_path / "out", "--clean", tmp_path / "clean", "--degrade", "rain", protocol="promptir")
    assert result.exit_code == 0, result.output
    assert "no images, left out: b.heic" in result.output


def test_a_file_that_is_no_checkpoint_is_refused(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    result = run(tmp_path / "out", "--pairs", *pairs, checkpoint=tmp_path / "weights.pth")
    assert result.exit_code == 1
    assert "weights.pth" in result.output
    assert not (tmp_path / "out").exists()
