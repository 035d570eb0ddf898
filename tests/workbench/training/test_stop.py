"""A run that is asked to stop, or is cut off: what is kept, and that it goes on as if nothing had been."""

import os
import pkgutil
import signal
import threading

import pytest
import torch
from safetensors.torch import load_file
from tests.workbench.training.runs import STEPS, PowerError, checkpoint, config, everything, left_in, run, same

from exda_primitives.errors import ProcessError, StoppedError
from exda_primitives.workbench.training import pauses, prepare, train
from exda_primitives.workbench.training.signals import SIGNALS, asked, listening

SELDOM = {"save_every": 100, "log_every": 3, "ema": 0.9}


def stopped(told, out, at, *numbers):
    """The same signals as those of a user, after a step."""

    def on_step(state):
        if state.step == at:
            for number in numbers:
                os.kill(os.getpid(), number)

    with pytest.raises(StoppedError) as caught:
        train(prepare(told, out, accelerator="cpu"), on_step=on_step)
    return caught.value


def same_outcome(one, other):
    weights = [load_file(out / "weights.safetensors") for out in (one, other)]
    return same(everything(one), everything(other)) and same(*weights)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_saved_at_the_step_after_a_signal(tmp_path, number, capfd):
    told, out = config(tmp_path, recipe=SELDOM), tmp_path / "out"
    before = [signal.getsignal(each) for each in SIGNALS]
    error = stopped(told, out, 1, number)
    assert error.number == number
    assert str(error) == (
        f"stopped by {number.name} after step 2 of {STEPS}. {out} holds the checkpoint of step 2. The same command "
        f"goes on."
    )
    assert f"{number.name}: stops after this step" in capfd.readouterr().err
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert checkpoint(out)["step"] == 2
    assert left_in(out) == ["last.ckpt", "weights.safetensors"]
    run(told, out)
    run(told, tmp_path / "whole")
    assert same_outcome(out, tmp_path / "whole")


def test_before_the_first_step(tmp_path, monkeypatch):
    made = prepare(config(tmp_path, recipe=SELDOM), tmp_path / "out", accelerator="cpu")

    def signalled(*told):
        os.kill(os.getpid(), signal.SIGTERM)
        return open_data(*told)

    from exda_primitives.workbench.training.data import open_data

    monkeypatch.setattr("exda_primitives.workbench.training.run.open_data", signalled)
    with pytest.raises(StoppedError, match=r"by SIGTERM before the first step\. .*no checkpoint yet"):
        train(made)
    assert left_in(tmp_path / "out") == []


def test_at_the_last_step_there_is_nothing_to_stop(tmp_path):
    def on_step(state):
        if state.step == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(prepare(config(tmp_path), tmp_path / "out", accelerator="cpu"), on_step=on_step)
    assert result["runs"][0]["steps"] == STEPS


def test_a_second_one_stops_at_once(tmp_path):
    told, out = config(tmp_path, recipe=SELDOM | {"save_every": 2}), tmp_path / "out"
    error = stopped(told, out, 3, signal.SIGTERM, signal.SIGINT)
    assert (error.number, str(error).split(".")[0]) == (signal.SIGTERM, "stopped at once")
    assert "holds the last checkpoint: the same command goes on after it" in str(error)
    assert checkpoint(out)["step"] == 2
    error = stopped(told, tmp_path / "other", 1, signal.SIGINT, signal.SIGINT)
    assert "There is no checkpoint yet" in str(error)


def test_a_signal_that_was_ignored_still_is(tmp_path):
    """Behind nohup, and in a script's background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def on_step(state):
        os.kill(os.getpid(), signal.SIGINT)

    try:
        train(prepare(config(tmp_path), tmp_path / "out", accelerator="cpu"), on_step=on_step)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert checkpoint(tmp_path / "out")["step"] == STEPS


def test_outside_the_main_thread_nothing_is_heard():
    to, met = asked(), []

    def enter():
        with listening(to):
            met.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert met == [signal.getsignal(signal.SIGTERM)]


def test_saved_by_the_clock_as_well(tmp_path, monkeypatch):
    told = config(tmp_path, recipe=SELDOM)
    run(told, tmp_path / "whole")
    monkeypatch.setattr(pauses, "EVERY", 0.0)
    monkeypatch.setattr(pauses, "SHARE", 0.0)
    held = []

    def on_step(state):
        held.append(checkpoint(tmp_path / "often")["step"])
        if state.step == 4:
            raise PowerError

    with pytest.raises(PowerError):
        train(prepare(told, tmp_path / "often", accelerator="cpu"), on_step=on_step)
    assert held == [1, 2, 3, 4]
    run(told, tmp_path / "often")
    assert same_outcome(tmp_path / "often", tmp_path / "whole")


def test_the_clock_waits(monkeypatch):
    class Here:
        global_rank, device = 0, torch.device("cpu")

        def all_reduce(self, told, reduce_op):
            assert reduce_op == "max"
            return told

    now = [100.0]
    monkeypatch.setattr(pauses.time, "monotonic", lambda: now[0])
    clock, found = pauses.Pauses(Here(), asked()), []
    for after, seconds in (
        (pauses.EVERY - 1, None),
        (1, 1.0),
        (pauses.EVERY - 1, None),
        (1, 60.0),
        (2999, None),
        (1, 0),
    ):
        now[0] += after
        found.append(clock.look().save)
        if seconds is not None:
            clock.saved(seconds)
    assert found == [False, True, False, True, False, True]


WRITES = [
    # What is written, and which time: saves are after the steps 2, 4 and 5.
    ("run.write_checkpoint", 1),
    ("run.write_network", 1),
    ("run.write_checkpoint", 3),
    ("run.write_network", 3),
    ("run.draw", 1),
    ("run.results.write", 1),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing cut off, and what it was told."""
    folder = tmp_path_factory.mktemp("whole")
    told = config(folder, recipe=SELDOM | {"save_every": 2})
    return told, folder / "whole", run(told, folder / "whole")


# After one write is before the next.
@pytest.mark.parametrize(("write", "turn", "when"), [*((*each, "before") for each in WRITES), (*WRITES[-1], "after")])
def test_killed_between_any_two_writes(tmp_path, monkeypatch, whole, write, turn, when):
    told, other, result = whole
    real, turns, out = pkgutil.resolve_name(f"exda_primitives.workbench.training.{write}"), [], tmp_path / "killed"

    def killed(*arguments):
        turns.append(write)
        if len(turns) < turn or when == "after":
            real(*arguments)
        if len(turns) == turn:
            raise PowerError

    with monkeypatch.context() as patched:
        patched.setattr(f"exda_primitives.workbench.training.{write}", killed)
        with pytest.raises(PowerError):
            run(told, out)
    again = run(told, out)
    assert same_outcome(out, other)
    assert again["runs"][0]["history"] == result["runs"][0]["history"]
    assert left_in(out) == ["last.ckpt", "result.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), r"not enough memory \(MemoryError\)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), r"CUDA out of memory.*recipe\.accumulate"),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. "), r"prepares pairs .*data\.workers"),
    ],
)
def test_what_ran_out_is_said(tmp_path, error, message):
    def on_step(state):
        if state.step == 3:
            raise error

    with pytest.raises(ProcessError, match=message) as caught:
        train(prepare(config(tmp_path), tmp_path / "out", accelerator="cpu"), on_step=on_step)
    assert "holds the last checkpoint: the same command goes on after it." in str(caught.value)


def test_any_other_error_keeps_its_traceback(tmp_path):
    def on_step(state):
        raise RuntimeError("a fault of the program")

    with pytest.raises(RuntimeError, match=r"^a fault of the program$"):
        train(prepare(config(tmp_path), tmp_path / "out", accelerator="cpu"), on_step=on_step)
