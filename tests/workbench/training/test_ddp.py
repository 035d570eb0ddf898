"""Two processes that train together compute what one does with as large a batch, and end together."""

import os
import signal

import pytest
import torch
from tests.workbench.data.images import write_image
from tests.workbench.training.runs import TINY, checkpoint, config, everything, images, run, same

import exda_primitives as exda
from exda_primitives.errors import ProcessError, StoppedError
from exda_primitives.workbench.shared import results
from exda_primitives.workbench.training import prepare, train
from exda_primitives.workbench.training.processes import together
from exda_primitives.workbench.training.signals import asked

# AdaIR has parameters that nothing uses, as PromptIR does.
ADAIR = {"name": "adair", "arguments": TINY}
RATE = 1e-3


def told(folder, batch):
    recipe = {"steps": 4, "learning_rate": RATE, "cosine_to": None, "clip": 0.5, "ema": 0.5, "accumulate": 2}
    stages = [{"until": 1, "patch": 8, "batch": 2 * batch}, {"patch": 16, "batch": batch}]
    return config(
        folder,
        model=ADAIR,
        primitives={"init": "paper", "include": "decoder"},
        data={"validation": images(folder, "valid.npz", 1), "patch": None},
        recipe=recipe | {"batch": None, "progressive": stages, "save_every": 100},
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder, and in it the run of two processes that nothing ends early."""
    folder = tmp_path_factory.mktemp("two")
    run(told(folder, 1), folder / "whole", devices=2)
    return folder


def test_two_processes_are_one_with_twice_the_batch(two, tmp_path):
    one = run(told(two, 2), tmp_path / "one")["runs"][0]
    of_two = results.read(two / "whole" / "result.json", "train")["runs"][0]
    assert (of_two["processes"], one["processes"]) == (2, 1)
    for ours, theirs in zip(of_two["history"], one["history"], strict=True):
        for name in ("loss", "gradient_norm"):
            # Measured: 2e-7.
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=0)
    torch.testing.assert_close(of_two["psnr"], one["psnr"], rtol=1e-5, atol=0)
    ours, theirs = (checkpoint(out) for out in (two / "whole", tmp_path / "one"))
    for part in ("state_dict", "average"):
        # Measured: 8e-7, where a single step moves a weight by up to RATE.
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=RATE / 100)


def in_the_second(number, step, state):
    """A signal to one of the processes, after a step."""
    if os.environ["LOCAL_RANK"] == "1" and state.step == step:
        os.kill(os.getpid(), number)


def stop_after_one(state):
    in_the_second(signal.SIGTERM, 1, state)


def die_after_three(state):
    in_the_second(signal.SIGKILL, 3, state)


def test_they_stop_at_one_step_and_go_on(two, tmp_path):
    def run_on(on_step=None):
        return train(prepare(told(two, 1), tmp_path / "out", devices=2, accelerator="cpu"), on_step=on_step)

    with pytest.raises(StoppedError) as caught:
        run_on(stop_after_one)
    assert caught.value.number == signal.SIGTERM
    assert str(caught.value) == (
        f"stopped by SIGTERM after step 2 of 4. {tmp_path / 'out'} holds the checkpoint of step 2. The same command "
        f"goes on."
    )
    message = r"process 1 of 2 was ended by SIGKILL, most likely because memory ran out\. .* holds the last checkpoint"
    with pytest.raises(ProcessError, match=message):
        run_on(die_after_three)
    assert checkpoint(tmp_path / "out")["step"] == 2
    result = run_on()
    assert same(everything(tmp_path / "out"), everything(two / "whole"))
    assert [leg["not_bit_for_bit"] for leg in result["runs"][0]["legs"]] == [[], []]


def test_an_error_of_one_process_is_that_of_the_run(tmp_path):
    write_image(tmp_path / "clean" / "a.png", 20, 27)
    told = config(tmp_path, data={"source": str(tmp_path / "clean")})
    plan = prepare(told, tmp_path / "out", devices=2, accelerator="cpu")
    (tmp_path / "clean" / "a.png").write_text("of no interest")
    with pytest.raises(exda.ImageError, match=r"a\.png is no image that can be read"):
        train(plan)


def fail(here):
    raise LookupError("a fault of the program")


def test_any_other_error_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)process 0 of 1:.*in fail\n.*LookupError: a fault of the program"):
        together("cpu", 1, asked(), fail)
