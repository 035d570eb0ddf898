"""Logging to TensorBoard and to Weights & Biases."""

import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.workbench.training.runs import STEPS, PowerError, config, images, run

import exda_primitives as exda
from exda_primitives.errors import WriteError

SCALARS = ["train/gradient_norm", "train/learning_rate", "train/loss", "validation/psnr"]


def tracked(folder, *names, **recipe):
    recipe = {"validate_every": 2, "save_every": 2, "log_to": list(names)} | recipe
    return config(folder, data={"validation": images(folder, "valid.npz", 1)}, recipe=recipe)


def lines_of(result):
    """Name -> step and value of each number in the history."""
    history = result["runs"][0]["history"]
    keys = {name: name.partition("/")[2] for name in SCALARS}
    return {
        name: [(line["step"], line[key]) for line in history if line[key] is not None] for name, key in keys.items()
    }


def events(out):
    found = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_tensorboard_resumes_in_the_same_log(tmp_path):
    """Step 3 is logged twice: by the run that is interrupted after it, and by the one that resumes after step 2."""
    configuration, out = tracked(tmp_path, "tensorboard"), tmp_path / "out"
    with pytest.raises(PowerError):
        run(configuration, out, stop=3)
    assert [event.step for event in events(out).Scalars("train/loss")] == [1, 2, 3]
    result = run(configuration, out)
    found = events(out)
    assert sorted(found.Tags()["scalars"]) == SCALARS
    for name, lines in lines_of(result).items():
        logged = [(event.step, event.value) for event in found.Scalars(name)]
        assert [step for step, _ in logged] == [step for step, _ in lines]
        assert [value for _, value in logged] == pytest.approx([value for _, value in lines])
    assert [event.step for event in found.Images("validation/images")] == [2, 4, STEPS]
    (tmp_path / "last.png").write_bytes(found.Images("validation/images")[-1].encoded_image_string)
    assert np.array_equal(Image.open(tmp_path / "last.png"), Image.open(out / "validation.png"))


def test_a_run_that_restarts_hides_what_it_logged_before(tmp_path):
    configuration, out = tracked(tmp_path, "tensorboard", save_every=100), tmp_path / "out"
    for stop in (3, 2):
        with pytest.raises(PowerError):
            run(configuration, out, stop=stop)
    assert [event.step for event in events(out).Scalars("train/loss")] == [1, 2]


class FakeWandb(ModuleType):
    """Logs as wandb does, and ignores steps before the latest one, as wandb's runs do."""

    Image = staticmethod(np.copy)

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.inits, self.codes = {}, [], []

    def init(self, **options):
        self.inits.append(options)
        self.now = self.runs.setdefault(options["id"], {})
        return self

    def log(self, values, step):
        if step >= max(self.now, default=0):
            self.now.setdefault(step, {}).update(values)

    def finish(self, exit_code):
        self.codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_resumes_in_the_same_run(tmp_path, wandb):
    configuration, out = tracked(tmp_path, "wandb"), tmp_path / "out"
    with pytest.raises(PowerError):
        run(configuration, out, stop=3)
    result = run(configuration, out)
    ((identity, logged),) = wandb.runs.items()
    assert [leg["wandb"] for leg in result["runs"][0]["legs"]] == [identity] * 2
    for each in wandb.inits:
        assert (each["name"], each["dir"], each["resume"]) == ("out", str(out), "allow")
        assert each["config"] == configuration.as_dict()
    assert wandb.codes == [1, 0]
    assert list(logged) == [1, 2, 3, 4, 5]
    for name, lines in lines_of(result).items():
        assert [(step, values[name]) for step, values in logged.items() if name in values] == lines
    shown = {step: values["validation/images"] for step, values in logged.items() if "validation/images" in values}
    assert list(shown) == [2, 4, 5]
    assert np.array_equal(shown[5], Image.open(out / "validation.png"))


def test_a_tracker_can_be_added_on_resuming(tmp_path, wandb, capsys):
    out = tmp_path / "out"
    with pytest.raises(PowerError):
        run(tracked(tmp_path), out, stop=3)
    result = run(tracked(tmp_path, "wandb", "tensorboard", "wandb"), out)
    assert "goes on after step 2, bit for bit" in capsys.readouterr().out
    assert ["wandb" in leg for leg in result["runs"][0]["legs"]] == [False, True]
    assert [len(wandb.inits), *wandb.now] == [1, 3, 4, 5]
    assert [event.step for event in events(out).Scalars("train/loss")] == [3, 4, 5]


def test_a_wandb_that_cannot_begin_is_explained(tmp_path, wandb, monkeypatch):
    def no_login(**options):
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setattr(wandb, "init", no_login)
    message = (
        r"recipe\.log_to: wandb cannot begin \(RuntimeError: api_key not configured \(no-tty\)\)\. Run 'wandb login'"
    )
    with pytest.raises(exda.ExDAError, match=message):
        run(tracked(tmp_path, "wandb"), tmp_path / "out")


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(exda.ExDAError, match=rf'{module} cannot be imported .*; run: pip install "{name}'):
        run(tracked(tmp_path, name), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run(tracked(tmp_path), tmp_path / "out")["runs"][0]["steps"] == STEPS


def test_a_log_on_a_full_disk_stops_the_run(tmp_path, monkeypatch):
    """It stops the run like any other file, and closing the log does not hide the reason."""
    from exda_primitives.workbench.training.trackers import TensorBoard

    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorBoard, "log", full)
    monkeypatch.setattr(TensorBoard, "close", full)
    with pytest.raises(WriteError, match=r"cannot be written to \(No space left on device\)\. .* no checkpoint yet"):
        run(tracked(tmp_path, "tensorboard"), tmp_path / "out")


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(exda.ConfigError, match=r"recipe\.log_to\[1\]: found 'mlflow' \(str\), expected one of"):
        tracked(tmp_path, "wandb", "mlflow")
