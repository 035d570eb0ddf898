"""What is printed while a run trains."""

import io
import os
from itertools import pairwise

import pytest
from tests.workbench.training.runs import config, run

from exda_primitives.workbench.training import log


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_early_and_then_become_rarer(clock):
    run_log, lines = log.Log(quiet=True, steps=10_000), []
    for step in range(1, 5001):
        clock[0] += 1
        if run_log.is_due():
            run_log.step(step, 0.5)
            lines.append(step)
    assert lines[:7] == [1, 11, 31, 71, 151, 311, 611]
    assert {later - earlier for earlier, later in pairwise(lines[6:])} == {300}


def test_a_line_has_loss_pace_and_time_left(clock, capsys):
    run_log = log.Log(quiet=False, steps=10_000)
    for step, seconds in ((1, 60), (5, 2), (3605, 3600)):
        clock[0] += seconds
        run_log.step(step, 0.123456, psnr=30.5 if step == 5 else None)
    assert capsys.readouterr().out.splitlines() == [
        "step 1: loss 0.12346",
        "step 5: loss 0.12346, PSNR 30.50 dB, 0.5 s per step, 1 h 23 min left",
        "step 3605: loss 0.12346, 0.999 s per step, 1 h 46 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_durations(seconds, said):
    assert log.duration(seconds) == said


def test_a_run_without_a_terminal_prints_after_the_first_step(tmp_path, capsys):
    run(config(tmp_path, recipe={"log_every": 100}), tmp_path / "out")
    assert capsys.readouterr().out.splitlines()[0].startswith("step 1: loss 0.")


def test_extra_lines_are_not_in_the_history(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(log, "LONGEST_WAIT", 0.0)
    result = run(config(tmp_path, recipe={"log_every": 3}), tmp_path / "out")
    assert [line["step"] for line in result["runs"][0]["history"]] == [3, 5]


def test_a_closed_pipe_does_not_stop_the_run(tmp_path, monkeypatch):
    """As ``exda train | tee log`` when Ctrl-C has ended tee."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        os.close(reader)
        assert run(config(tmp_path), tmp_path / "out")["runs"][0]["steps"] == 5
        print("what is printed later leads nowhere")


def test_a_log_on_a_full_disk_does_not_stop_the_run(tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    assert run(config(tmp_path), tmp_path / "out")["runs"][0]["steps"] == 5
