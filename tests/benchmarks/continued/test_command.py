"""``python -m benchmarks.continued``."""

import pytest
from tests.benchmarks.continued.small import benchmark_config, sources
from typer.testing import CliRunner

from benchmarks.continued import __main__ as command


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "FORMS", {"continued": benchmark_config(tmp_path, name="continued")})
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)


def invoked(folder, *more):
    given = sources(folder)
    options = {"--train": given.train, "--test": given.test, "--out": folder / "out.json", "--work": folder / "work"}
    arguments = [str(each) for option in options.items() for each in option]
    return CliRunner().invoke(command.app, ["run", "--form", "continued", *arguments, *more])


def test_one_command_trains_the_host_and_continues_from_it(tmp_path):
    stopped = invoked(tmp_path, "--minutes", "0")
    assert (stopped.exit_code, "the host is not trained yet" in stopped.output) == (0, True)
    assert not (tmp_path / "out.json").exists()
    done = invoked(tmp_path)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out.md").read_text()
    line = "Command: `python -m benchmarks.continued run --form continued --train crops.npz --test photographs.npz`"
    assert line in text
    (tmp_path / "out.md").unlink()
    again = CliRunner().invoke(command.app, ["report", "--out", str(tmp_path / "out.json")])
    assert again.exit_code == 0
    assert (tmp_path / "out.md").read_text() == text
