"""``python -m benchmarks.quality``."""

import pytest
from tests.benchmarks.quality.small import benchmark_config, sources
from typer.testing import CliRunner

from benchmarks.quality import __main__ as command


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(command, "FORMS", {"cpu": benchmark_config(name="cpu")})
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)


def invoked(folder, *more):
    given = sources(folder)
    options = {
        "--train": given.train,
        "--test": given.test,
        "--out": folder / "quality.json",
        "--work": folder / "work",
    }
    arguments = [str(each) for option in options.items() for each in option]
    return CliRunner().invoke(command.app, ["run", "--form", "cpu", *arguments, *more])


def test_one_command_trains_resumes_and_reports(tmp_path):
    stopped = invoked(tmp_path, "--minutes", "0")
    assert (stopped.exit_code, list(tmp_path.glob("quality.*"))) == (0, [])
    done = invoked(tmp_path)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "quality.json").exists()
    text = (tmp_path / "quality.md").read_text()
    assert "Command: `python -m benchmarks.quality run --form cpu --train crops.npz --test photographs.npz`" in text
    (tmp_path / "quality.md").unlink()
    again = CliRunner().invoke(command.app, ["report", "--out", str(tmp_path / "quality.json")])
    assert again.exit_code == 0
    assert (tmp_path / "quality.md").read_text() == text


def test_the_large_form_needs_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = sources(tmp_path)
    arguments = ["run", "--form", "gpu", "--train", str(given.train), "--test", str(given.test)]
    refused = CliRunner().invoke(command.app, [*arguments, "--out", str(tmp_path / "quality.json")])
    assert (refused.exit_code, "needs a GPU" in refused.output) == (1, True)
    assert not (tmp_path / "quality.json").exists()


def test_a_result_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "quality.json").write_text('{"kind": "digits", "schema": 1}')
    refused = invoked(tmp_path)
    assert refused.exit_code == 1
    assert "error: " in refused.output
    assert "holds a result of kind 'digits'" in refused.output
    assert (tmp_path / "quality.json").read_text() == '{"kind": "digits", "schema": 1}'


def test_no_report_of_a_result_of_another_version(tmp_path):
    path = tmp_path / "quality.json"
    path.write_text('{"kind": "quality", "schema": 0}')
    refused = CliRunner().invoke(command.app, ["report", "--out", str(path)])
    assert (refused.exit_code, "is of version 0" in refused.output) == (1, True)
    assert list(tmp_path.iterdir()) == [path]
