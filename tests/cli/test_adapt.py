"""exda adapt."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.workbench.training.runs import same
from typer.testing import CliRunner

import exda_primitives as exda
from exda_primitives.cli import app
from exda_primitives.workbench.adaptation import load, search
from exda_primitives.workbench.training.step import Step

MODEL = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 1}


@pytest.fixture
def host(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "host.pth"
    torch.save(exda.models.Restormer(**MODEL).state_dict(), path)
    return path


@pytest.fixture
def clean(tmp_path):
    path = tmp_path / "clean.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (5, 20, 27, 3), dtype=np.uint8))
    return path


@pytest.fixture
def adapt(tmp_path, host):
    """Runs the command for two steps on small patches; options given here win."""

    def run(*options, steps=2, out=tmp_path / "out"):
        changes = [part for change in ("data.patch=16", f"recipe.steps={steps}") for part in ("--set", change)]
        arguments = ["adapt", host, "--out", out, "--accelerator", "cpu", *changes, *options]
        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})

    return run


@pytest.mark.parametrize("method", ["lora", "exda", "both"])
def test_it_writes_a_patch_that_restore_uses_a_table_and_a_picture(adapt, clean, host, tmp_path, method):
    done = adapt("--clean", clean, "--degrade", "low", "--degrade", "haze", "--method", method)
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    assert "4 images to train on, 1 held out" in done.output
    assert "4 images are few" in done.output
    result = json.loads((out / "result.json").read_text())
    assert [(run["name"], run["degradation"]) for run in result["runs"]] == [("images/2", "low"), ("images/2", "haze")]
    low = result["runs"][0]
    assert f"{low['before_psnr']:.2f} / {low['before_ssim']:.4f}" in (out / "adapt.md").read_text()
    assert f"{low['after_psnr'] - low['before_psnr']:+.2f}" in done.output
    assert low["after_psnr"] != low["before_psnr"]
    assert result["bytes"] == (out / "patch.safetensors").stat().st_size
    assert Image.open(out / "before_after.png").width == 4 * (27 + 8) - 8
    # What the training reported of its network is what the file makes of the host.
    run = json.loads((out / "run" / "result.json").read_text())["runs"][0]
    assert run["psnr"] == pytest.approx(np.mean([each["after_psnr"] for each in result["runs"]]), abs=1e-4)
    assert run["trained_parameters"] == result["trained_parameters"]
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(image)
    options = ["--checkpoint", host, "--patch", out / "patch.safetensors"]
    restored = CliRunner().invoke(app, list(map(str, ["restore", image, tmp_path / "restored.png", *options])))
    assert restored.exit_code == 0, restored.output


def test_the_host_stays_as_it_is(adapt, clean, host):
    before = host.read_bytes()
    assert adapt("--clean", clean, "--degrade", "low").exit_code == 0
    assert host.read_bytes() == before


def test_interrupted_it_goes_on_to_the_same_file(adapt, clean, tmp_path, monkeypatch):
    options = ("--clean", clean, "--degrade", "low", "--set", "recipe.save_every=1", "--method", "both")
    assert adapt(*options, steps=3, out=tmp_path / "whole").exit_code == 0
    step, done = Step.__call__, []

    def stops(self, passes):
        done.append(step(self, passes))
        if len(done) == 3:
            raise KeyboardInterrupt
        return done[-1]

    monkeypatch.setattr(Step, "__call__", stops)
    stopped = adapt(*options, steps=3)
    assert stopped.exit_code == 130, stopped.output
    monkeypatch.setattr(Step, "__call__", step)
    resumed = adapt(*options, steps=3)
    assert resumed.exit_code == 0, resumed.output
    assert "goes on after step 2, bit for bit" in resumed.output
    assert same(*(load_file(tmp_path / out / "patch.safetensors") for out in ("out", "whole")))
    # Once more: nothing is trained, and the tables are the same.
    table = (tmp_path / "out" / "adapt.md").read_text()
    assert adapt(*options, steps=3).exit_code == 0
    assert (tmp_path / "out" / "adapt.md").read_text() == table


def test_minutes_are_measured_and_kept(adapt, clean, host, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "LEAST_STEPS", 1)
    arguments = ["adapt", host, "--clean", clean, "--degrade", "low", "--out", tmp_path / "out"]
    arguments += ["--minutes", 0.05, "--set", "data.patch=8", "--set", "recipe.batch=1", "--accelerator", "cpu"]
    done = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    chosen = json.loads((tmp_path / "out" / "adapt.json").read_text())["chosen"]
    run = json.loads((tmp_path / "out" / "run" / "result.json").read_text())
    assert run["runs"][0]["steps"] == chosen["steps"]
    assert run["config"]["recipe"]["learning_rate"] == chosen["learning_rate"]
    assert f"{chosen['steps']:,} steps in 0.05 minutes. That is little to learn from" in done.output


def test_another_request_for_the_same_folder_is_refused(adapt, clean, tmp_path):
    assert adapt("--clean", clean, "--degrade", "low").exit_code == 0
    other = adapt("--clean", clean, "--degrade", "haze")
    assert other.exit_code == 1
    assert "holds another adaptation: degradations was ['low'], is ['haze']" in other.output
    (tmp_path / "out" / "adapt.json").write_text("{")
    damaged = adapt("--clean", clean, "--degrade", "low")
    assert "adapt.json: is damaged" in damaged.output


def pairs(folder, shift=0, number=4):
    """Two folders; all but the first degraded image are shifted to the right."""
    grey = np.random.default_rng(0).integers(0, 256, (number, 40, 40, 1), dtype=np.uint8)
    for index, image in enumerate(np.repeat(grey, 3, -1)):
        for name, shown in (("clean", image), ("degraded", np.roll(image // 2, shift if index else 0, 1))):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(shown).save(folder / name / f"{index}.png")
    return "--pairs", folder / "degraded", folder / "clean"


def test_pairs_of_files(adapt, tmp_path):
    done = adapt(*pairs(tmp_path))
    assert done.exit_code == 0, done.output
    assert "3 pairs to train on, 1 held out" in done.output
    assert "not aligned" not in done.output
    assert exda.models.create(checkpoint=tmp_path / "host.pth") is not None


def test_pairs_that_are_not_aligned_are_named_before_the_work(adapt, tmp_path):
    done = adapt(*pairs(tmp_path, shift=4))
    assert done.exit_code == 0, done.output
    assert "not aligned" in done.output.split("step 1")[0]
    for name in ("1: the", "3: the"):
        assert name in done.output
    assert "0: the" not in done.output


def test_two_pictures_are_said_to_be_few(adapt, tmp_path):
    done = adapt(*pairs(tmp_path, number=2))
    assert done.exit_code == 0, done.output
    assert "1 pairs are few" in done.output
    assert "too few to conclude from" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--degrade", "low"), "give one of both"),
        (("--clean", "CLEAN"), "go together"),
        (("--clean", "CLEAN", "--degrade", "low", "--method", "magic"), "found method 'magic', expected one of lora"),
        (("--clean", "CLEAN", "--degrade", "low", "--minutes", "0"), "found 0.0 minutes"),
        (("--clean", "CLEAN", "--degrade", "low", "--set", "recipe.train=all"), "recipe.train cannot be changed"),
        (("--clean", "CLEAN", "--degrade", "low", "--set", "model.name=x"), "model.name cannot be changed"),
        (("--clean", "CLEAN", "--degrade", "low", "--held-out", "5"), "at least one must be left"),
        (("--clean", "CLEAN", "--degrade", "fog"), "fog"),
        (("--clean", "CLEAN", "--degrade", "low", "--set", "data.patch=64"), "too few for patches of 64"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(adapt, clean, tmp_path, options, message):
    done = adapt(*(clean if each == "CLEAN" else each for each in options))
    assert done.exit_code in (1, 2)
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_another_host_refuses_the_file(adapt, clean, tmp_path):
    assert adapt("--clean", clean, "--degrade", "low").exit_code == 0
    torch.manual_seed(1)
    with pytest.raises(exda.CheckpointError, match="host with other weights"):
        load(exda.models.Restormer(**MODEL), tmp_path / "out" / "patch.safetensors")
