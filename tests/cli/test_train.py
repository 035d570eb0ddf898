"""exda train."""

import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.workbench.data.images import write_image
from tests.workbench.training.runs import checkpoint, images, settings
from typer.testing import CliRunner

from exda_primitives.cli import app
from exda_primitives.workbench.training.step import Step


@pytest.fixture
def command(tmp_path):
    """Runs exda train with a configuration of three steps."""
    file = tmp_path / "run.yaml"
    given = settings(tmp_path, recipe={"steps": 3, "ema": 0.5})
    given["data"]["validation"] = images(tmp_path, "valid.npz", 1, seed=1)
    file.write_text(yaml.safe_dump(given))

    def run(*options: object, out: Path = tmp_path / "out"):
        arguments = ["train", "--config", file, "--out", out, "--accelerator", "cpu", *options]
        return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})

    return run


def test_summary_table_result_and_plot(command, tmp_path):
    done = command("--set", "recipe.batch=1", "--set", "primitives.tokens=2")
    assert done.exit_code == 0, done.output
    for line in (
        "attentions replaced",
        "restormer, ",
        "6 pairs per epoch, patches of 16: noise25, haze",
        "3 steps of 1",
    ):
        assert line in done.output
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    last = result["runs"][0]["history"][-1]
    assert f"{last['loss']:.5f}" in done.output
    assert f"{last['psnr']:.2f}" in done.output
    assert result["kind"] == "train"
    assert result["command"].split()[0] == "exda"
    assert (result["config"]["recipe"]["batch"], result["config"]["primitives"]["tokens"]) == (1, 2)
    assert {"torch", "cpu", "commit"} <= result["machine"].keys()
    assert (tmp_path / "out" / "history.png").read_bytes().startswith(b"\x89PNG")


def test_a_dry_run_describes_the_training_and_writes_nothing(command, tmp_path):
    done = command("--dry-run", "--devices", 2)
    assert done.exit_code == 0, done.output
    for line in ("3 steps of 4 pairs, 2 epochs", "2 x cpu", "random weights", "2 pairs, whole images"):
        assert line in done.output
    assert not (tmp_path / "out").exists()


def test_entries_that_are_no_images_are_named(command, tmp_path):
    np.savez(tmp_path / "more.npz", images=np.zeros((1, 20, 20, 3), np.uint8), labels=np.zeros(1))
    done = command("--dry-run", "--set", f"data.source={tmp_path / 'more.npz'}")
    assert done.exit_code == 0, done.output
    assert "noise25, haze; no images, left out: labels" in done.output


def test_an_impossible_folder_is_refused(command, tmp_path):
    done = command(out=tmp_path / "run.yaml" / "out")
    assert done.exit_code == 1
    assert "cannot hold results" in done.output


def test_the_same_command_again_changes_nothing(command, tmp_path):
    assert command().exit_code == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    again = command()
    assert again.exit_code == 0
    assert "done before" in again.output
    assert (tmp_path / "out" / "result.json").read_bytes() == before


def test_another_configuration_is_refused(command, tmp_path):
    assert command().exit_code == 0
    before = checkpoint(tmp_path / "out")["config"]
    refused = command("--set", "recipe.learning_rate=2e-3")
    assert refused.exit_code == 1
    assert "recipe.learning_rate was 0.001, is 0.002. Give another folder" in refused.output
    assert "Traceback" not in refused.output
    assert checkpoint(tmp_path / "out")["config"] == before


def test_divergence_is_an_error_not_a_traceback(command, tmp_path):
    failed = command("--set", "recipe.learning_rate=1e18", "--set", "recipe.steps=50")
    assert failed.exit_code == 1
    assert "with learning rate 1e+18; the last finite loss was" in failed.output
    assert "Traceback" not in failed.output
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--set", "recipe.lr=1"), "recipe.lr: is not known. Known are steps"),
        (("--set", "model.name=unet"), "there is no such network"),
        (("--set", "data.source=nowhere"), "nowhere does not exist"),
        (("--set", "primitives.include=head"), "selects none of the recognised attentions"),
        (("--set", "data.patch=20"), "data.patch: found 20, restormer takes multiples of 8"),
        (("--set", "model.arguments.dim=7"), "and a patch of 16 pixels cannot compute"),
        (("--set", "data.patch=24"), "3 of 3 images cannot be used; mend them"),
        (("--set", "primitives.include=[*.attn]"), "A pattern that begins with * goes in quotes"),
        (("--accelerator", "tpu"), "found 'tpu', expected one of auto, cpu, gpu"),
        (("--config", "none.yaml"), "none.yaml: cannot be read"),
    ],
)
def test_bad_input_is_refused(command, tmp_path, options, message):
    done = command(*options)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_training_with_a_checkpoint(command, tmp_path, monkeypatch, number):
    step = Step.__call__

    def signalled(self, passes):
        os.kill(os.getpid(), number)
        return step(self, passes)

    with monkeypatch.context() as patched:
        patched.setattr(Step, "__call__", signalled)
        done = command()
    assert done.exit_code == 128 + number
    kept = f"{tmp_path / 'out'} holds the checkpoint of step 1. The same command goes on."
    assert f"stopped by {number.name} after step 1 of 3. {kept}" in done.output
    assert "Traceback" not in done.output
    again = command()
    assert again.exit_code == 0
    assert "goes on after step 1, bit for bit" in again.output


def test_an_interruption_before_the_first_step_writes_nothing(command, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("exda_primitives.workbench.training.prepare", interrupted)
    done = command()
    assert (done.exit_code, done.output) == (130, "stopped before the first step; nothing was written.\n")


def test_a_full_disk_is_one_line(command, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("exda_primitives.workbench.training.run.write_checkpoint", full)
    done = command()
    assert done.exit_code == 1
    said = f"error: {tmp_path / 'out'}: cannot be written to (No space left on device). {tmp_path / 'out'} holds no "
    assert done.output.splitlines()[-1].startswith(said)


def test_the_first_loss_is_in_the_file_at_once(command):
    """Even without log lines and without a progress bar."""
    done = command("--set", "recipe.log_every=100", "--set", "data.validation=null")
    lines = done.output.splitlines()
    assert lines.index(next(line for line in lines if line.startswith("step 1: loss 0."))) < len(lines) - 4


def test_image_names_that_are_no_text_or_very_long(command, tmp_path):
    """Names that are not UTF-8, and names of 254 and 255 bytes, the longest that a file system takes."""
    for seed, name in enumerate((b"\xff\xfe.png", "\u00e9".encode() * 125 + b".png", b"a" * 251 + b".png")):
        write_image(Path(os.fsdecode(os.fsencode(tmp_path / "clean") + b"/" + name)), 20, 27, seed=seed)
    (tmp_path / "clean" / os.fsdecode(b"\xff.txt")).touch()
    assert command("--set", f"data.source={tmp_path / 'clean'}").exit_code == 0
