"""Images that are held out of the training and validated on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from tests.workbench.training.runs import config, images, run

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.data.images import open_images
from exda_primitives.workbench.training import prepare
from exda_primitives.workbench.training.data import _divided, open_data


def held(folder, held_out, number=5, **data):
    return config(folder, data={"source": images(folder, "some.npz", number), "held_out": held_out, **data})


def test_the_run_trains_on_the_others_and_validates_on_them(tmp_path):
    told = held(tmp_path, 2)
    training, validation = open_data(told, 3)
    assert (training.images.names, validation.images.names) == (
        ("images/0", "images/2", "images/4"),
        ("images/1", "images/3"),
    )
    assert (len(training), len(validation)) == (6, 4)
    assert {pair.name for pair in (validation[index] for index in range(4))} == set(validation.images.names)
    assert validation[0].clean.shape == (3, 20, 27)
    result = run(told, tmp_path / "out")
    assert result["runs"][0]["psnr"] > 0


@hypothesis_settings(max_examples=50, deadline=None)
@given(data=st.data(), number=st.integers(2, 40))
def test_every_image_is_in_one_of_the_two(tmp_path_factory, data, number):
    folder = tmp_path_factory.mktemp("held")
    np.savez(folder / "some.npz", images=np.zeros((number, 8, 8, 3), np.uint8))
    source = open_images(folder / "some.npz")
    held_out = data.draw(st.integers(1, number - 1))
    trained, validated = (each.names for each in _divided(source, held_out))
    assert len(validated) == held_out
    assert sorted(trained + validated) == list(source.names)


def test_pairs_of_files_stay_together(tmp_path):
    for number in range(3):
        for folder in ("degraded", "clean"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.full((20, 20, 3), 10 * number, np.uint8)).save(tmp_path / folder / f"{number}.png")
    folders = {"degraded": str(tmp_path / "degraded"), "clean": str(tmp_path / "clean")}
    training, validation = open_data(config(tmp_path, data={"source": folders, "degradations": [], "held_out": 1}), 3)
    assert [pair.name for pair in training.files.pairs] == ["0", "2"]
    (pair,) = validation.files.pairs
    assert (pair.degraded.parent.name, pair.clean.parent.name, pair.name) == ("degraded", "clean", "1")


@pytest.mark.parametrize("held_out", [5, 6])
def test_one_image_must_be_left(tmp_path, held_out):
    with pytest.raises(ConfigError, match=rf"held_out: found {held_out}, but the source has 5 images"):
        prepare(held(tmp_path, held_out), tmp_path / "out", accelerator="cpu")


@pytest.mark.parametrize("other", [{"validation": "valid.npz"}, {"benchmark": "cdd11", "degradations": []}])
def test_beside_another_validation_it_is_an_error(tmp_path, other):
    with pytest.raises(ConfigError, match=f"held_out: found 1 beside data.{next(iter(other))}"):
        held(tmp_path, 1, **other)


def test_a_run_cannot_go_on_with_others_held_out(tmp_path):
    run(held(tmp_path, 1), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"data\.held_out was 1, is 2"):
        prepare(held(tmp_path, 2), tmp_path / "out", accelerator="cpu")
