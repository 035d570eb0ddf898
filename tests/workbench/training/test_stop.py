"""A run that is asked to stop, or is killed: what is kept, and that it resumes to the same result."""

import os
import pkgutil
import signal
import threading

import pytest
import torch
from safetensors.torch import load_file
from tests.workbench.training.runs import STEPS, PowerError, checkpoint, config, files_in, final_state, run, same

from exda_primitives.errors import ProcessError, StoppedError
from exda_primitives.workbench.training import pauses, prepare, train
from exda_primitives.workbench.training.signals import SIGNALS, asked, listening

SELDOM = {"save_every": 100, "log_every": 3, "ema": 0.9}


def stopped(configuration, out, at, *numbers):
    """Trains, sends itself signals after a step as a user would, and returns the error."""

    def on_step(state):
        if state.step == at:
            for number in numbers:
                os.kill(os.getpid(), number)

    with pytest.raises(StoppedError) as caught:
        train(prepare(configuration, out, accelerator="cpu"), on_step=on_step)
    return caught.value


def same_outcome(one, other):
    weights = [load_file(out / "weights.safetensors") for out in (one, other)]
    return same(final_state(one), final_state(other)) and same(*weights)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_saves_a_checkpoint_after_the_next_step(tmp_path, number, capfd):
    configuration, out = config(tmp_path, recipe=SELDOM), tmp_path / "out"
    before = [signal.getsignal(each) for each in SIGNALS]
    error = stopped(configuration, out, 1, number)
    assert error.number == number
    assert str(error) == (
        f"stopped by {number.name} after step 2 of {STEPS}. {out} holds the checkpoint of step 2. The same command "
        f"goes on."
    )
    assert f"{number.name}: stops after this step" in capfd.readouterr().err
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert checkpoint(out)["step"] == 2
    assert files_in(out) == ["last.ckpt", "weights.safetensors"]
    run(configuration, out)
    run(configuration, tmp_path / "whole")
    assert same_outcome(out, tmp_path / "whole")


def test_a_signal_before_the_first_step(tmp_path, monkeypatch):
    made = prepare(config(tmp_path, recipe=SELDOM), tmp_path / "out", accelerator="cpu")

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return open_data(*arguments)

    from exda_primitives.workbench.training.data import open_data

    monkeypatch.setattr("exda_primitives.workbench.training.run.open_data", signalled)
    with pytest.raises(StoppedError, match=r"by SIGTERM before the first step\. .*no checkpoint yet"):
        train(made)
    assert files_in(tmp_path / "out") == []


def test_a_signal_at_the_last_step_does_not_stop(tmp_path):
    def on_step(state):
        if state.step == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(prepare(config(tmp_path), tmp_path / "out", accelerator="cpu"), on_step=on_step)
    assert result["runs"][0]["steps"] == STEPS


def test_a_second_signal_stops_at_once(tmp_path):
    configuration, out = config(tmp_path, recipe=SELDOM | {"save_every": 2}), tmp_path / "out"
    error = stopped(configuration, out, 3, signal.SIGTERM, signal.SIGINT)
    assert (error.number, str(error).split(".")[0]) == (signal.SIGTERM, "stopped at once")
    assert "holds the last checkpoint: the same command goes on after it" in str(error)
    assert checkpoint(out)["step"] == 2
    error = stopped(configuration, tmp_path / "other", 1, signal.SIGINT, signal.SIGINT)
    assert "There is no checkpoint yet" in str(error)


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    """As under nohup, or in a script's background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def on_step(state):
        os.kill(os.getpid(), signal.SIGINT)

    try:
        train(prepare(config(tmp_path), tmp_path / "out", accelerator="cpu"), on_step=on_step)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert checkpoint(tmp_path / "out")["step"] == STEPS


def test_signals_are_not_handled_outside_the_main_thread():
    to, met = asked(), []

    def enter():
        with listening(to):
            met.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert met == [signal.getsignal(signal.SIGTERM)]


def test_checkpoints_are_saved_by_the_clock_as_well(tmp_path, monkeypatch):
    configuration = config(tmp_path, recipe=SELDOM)
    run(configuration, tmp_path / "whole")
    monkeypatch.setattr(pauses, "EVERY", 0.0)
    monkeypatch.setattr(pauses, "SHARE", 0.0)
    saved_steps = []

    def on_step(state):
        saved_steps.append(checkpoint(tmp_path / "often")["step"])
        if state.step == 4:
            raise PowerError

    with pytest.raises(PowerError):
        train(prepare(configuration, tmp_path / "often", accelerator="cpu"), on_step=on_step)
    assert saved_steps == [1, 2, 3, 4]
    run(configuration, tmp_path / "often")
    assert same_outcome(tmp_path / "often", tmp_path / "whole")


def test_the_clock_waits_longer_after_a_slow_save(monkeypatch):
    class Here:
        global_rank, device = 0, torch.device("cpu")

        def all_reduce(self, configuration, reduce_op):
            assert reduce_op == "max"
            return configuration

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
        found.append(clock.check().save)
        if seconds is not None:
            clock.saved(seconds)
    assert found == [False, True, False, True, False, True]


WRITES = [
    # The write that fails, and at which of its calls: checkpoints are saved after steps 2, 4 and 5.
    ("run.write_checkpoint", 1),
    ("run.write_network", 1),
    ("run.write_checkpoint", 3),
    ("run.write_network", 3),
    ("run.draw", 1),
    ("run.results.write", 1),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The configuration, the folder and the result of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    configuration = config(folder, recipe=SELDOM | {"save_every": 2})
    return configuration, folder / "whole", run(configuration, folder / "whole")


# "after" only for the last write: after any other is before the next.
@pytest.mark.parametrize(("write", "turn", "when"), [*((*each, "before") for each in WRITES), (*WRITES[-1], "after")])
def test_a_run_killed_between_any_two_writes_resumes(tmp_path, monkeypatch, whole, write, turn, when):
    configuration, other, result = whole
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
            run(configuration, out)
    again = run(configuration, out)
    assert same_outcome(out, other)
    assert again["runs"][0]["history"] == result["runs"][0]["history"]
    assert files_in(out) == ["last.ckpt", "result.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), r"not enough memory \(MemoryError\)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), r"CUDA out of memory.*recipe\.accumulate"),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. "), r"prepares pairs .*data\.workers"),
    ],
)
def test_missing_memory_is_explained(tmp_path, error, message):
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
