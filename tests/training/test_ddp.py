"""Two processes that train together compute what one does with as large a batch."""

import numpy as np
import pytest
import torch
from tests.training.runs import TINY, checkpoint, config, pictures, run

import exda_primitives as exda

# AdaIR has parameters that nothing uses, as PromptIR does.
ADAIR = {"name": "adair", "arguments": TINY}
RATE = 1e-3


def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    def told(batch):
        recipe = {"steps": 3, "learning_rate": RATE, "cosine_to": None, "clip": 0.5, "ema": 0.5, "accumulate": 2}
        return config(
            tmp_path,
            model=ADAIR,
            primitives={"init": "paper", "include": "decoder"},
            data={"validation": pictures(tmp_path, "valid.npz", 1)},
            recipe=recipe | {"batch": batch},
        )

    two = run(told(1), tmp_path / "two", devices=2)["runs"][0]
    one = run(told(2), tmp_path / "one")["runs"][0]
    assert (two["processes"], one["processes"]) == (2, 1)
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        for name in ("loss", "gradient_norm"):
            # Measured: 2e-7.
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=0)
    torch.testing.assert_close(two["psnr"], one["psnr"], rtol=1e-5, atol=0)
    ours, theirs = (checkpoint(tmp_path / name) for name in ("two", "one"))
    for part in ("state_dict", "average"):
        # Measured: 8e-7, where a single step moves a weight by up to RATE.
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=RATE / 100)


def test_an_error_of_one_process_is_that_of_the_run(tmp_path):
    np.savez(tmp_path / "small.npz", pictures=np.zeros((1, 9, 20, 3), np.uint8))
    told = config(tmp_path, data={"source": str(tmp_path / "small.npz")})
    with pytest.raises(exda.ImageError, match=r"pictures/0 has 9 x 20 pixels, too few for patches of 16"):
        run(told, tmp_path / "out", devices=2)
