"""Two processes compute the same as one with twice the batch, and end together."""

import os
import signal

import pytest
import torch
from tests.workbench.data.images import write_image
from tests.workbench.training.runs import TINY, checkpoint, config, final_state, images, run, same

import exda_primitives as exda
from exda_primitives.errors import ProcessError, StoppedError
from exda_primitives.workbench.shared import results
from exda_primitives.workbench.training import prepare, train
from exda_primitives.workbench.training.processes import together
from exda_primitives.workbench.training.signals import asked

# AdaIR, like PromptIR, has parameters that the output does not depend on.
ADAIR = {"name": "adair", "arguments": TINY}
RATE = 1e-3


def configured(folder, batch):
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
    """A folder that holds the uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    run(configured(folder, 1), folder / "whole", devices=2)
    return folder


def test_two_processes_compute_the_same_as_one_with_twice_the_batch(two, tmp_path):
    one = run(configured(two, 2), tmp_path / "one")["runs"][0]
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


def signal_second_process(number, step, state):
    """Sends a signal to the second process after a step."""
    if os.environ["LOCAL_RANK"] == "1" and state.step == step:
        os.kill(os.getpid(), number)


def stop_after_one(state):
    signal_second_process(signal.SIGTERM, 1, state)


def die_after_three(state):
    signal_second_process(signal.SIGKILL, 3, state)


def test_both_processes_stop_at_the_same_step_and_resume(two, tmp_path):
    def resume(on_step=None):
        return train(prepare(configured(two, 1), tmp_path / "out", devices=2, accelerator="cpu"), on_step=on_step)

    with pytest.raises(StoppedError) as caught:
        resume(stop_after_one)
    assert caught.value.number == signal.SIGTERM
    assert str(caught.value) == (
        f"stopped by SIGTERM after step 2 of 4. {tmp_path / 'out'} holds the checkpoint of step 2. The same command "
        f"goes on."
    )
    message = r"process 1 of 2 was ended by SIGKILL, most likely because memory ran out\. .* holds the last checkpoint"
    with pytest.raises(ProcessError, match=message):
        resume(die_after_three)
    assert checkpoint(tmp_path / "out")["step"] == 2
    result = resume()
    assert same(final_state(tmp_path / "out"), final_state(two / "whole"))
    assert [leg["not_bit_for_bit"] for leg in result["runs"][0]["legs"]] == [[], []]


def test_an_error_of_one_process_is_raised_by_the_run(tmp_path):
    write_image(tmp_path / "clean" / "a.png", 20, 27)
    configured = config(tmp_path, data={"source": str(tmp_path / "clean")})
    plan = prepare(configured, tmp_path / "out", devices=2, accelerator="cpu")
    (tmp_path / "clean" / "a.png").write_text("of no interest")
    with pytest.raises(exda.ImageError, match=r"a\.png is no image that can be read"):
        train(plan)


def fail(here):
    raise LookupError("a fault of the program")


def test_any_other_error_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"(?s)process 0 of 1:.*in fail\n.*LookupError: a fault of the program"):
        together("cpu", 1, asked(), fail)
