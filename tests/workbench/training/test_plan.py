"""Checks before the first step, and the plan that is printed."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.workbench.data.images import write_image
from tests.workbench.training.runs import TINY, config, run

import exda_primitives as exda
from exda_primitives.errors import DataError
from exda_primitives.workbench.training import prepare

GREY = {"name": "restormer", "arguments": TINY | {"inp_channels": 1, "out_channels": 1}}


@pytest.fixture
def folders(tmp_path):
    """Three pairs of images of 20 x 27 pixels."""
    for seed in range(6):
        part, name = ("degraded", "clean")[seed % 2], seed // 2
        write_image(tmp_path / "pairs" / part / f"{name}.png", 20, 27, seed=seed)
    return tmp_path / "pairs"


def config_of_pairs(tmp_path, folders, **changes):
    source = {"degraded": str(folders / "degraded"), "clean": str(folders / "clean")}
    return config(tmp_path, data={"source": source, "degradations": [], "validation": source}, **changes)


def plan_of(configuration, tmp_path):
    return prepare(configuration, tmp_path / "out", accelerator="cpu")


def printed(plan, capsys):
    plan.print(Console(width=300))
    return capsys.readouterr().out


def test_pairs_in_two_folders_are_planned_and_trained_on(tmp_path, folders, capsys):
    configuration = config_of_pairs(tmp_path, folders)
    lines = printed(plan_of(configuration, tmp_path), capsys)
    for line in (
        "3 pairs per epoch, patches of 16: of two folders",
        "6, all readable; sides of 20 to 27 pixels",
        "3 pairs",
    ):
        assert line in lines
    degraded, clean, name, degradation, _ = plan_of(configuration, tmp_path).data.validation[1]
    assert (name, degradation) == ("1", "pairs")
    for image, part in ((degraded, "degraded"), (clean, "clean")):
        assert np.array_equal(image.permute(1, 2, 0) * 255, np.array(Image.open(folders / part / "1.png")))
    result = run(configuration, tmp_path / "out")
    assert result["runs"][0]["history"][-1]["psnr"] > 0


def test_pairs_for_a_grey_network(tmp_path, folders, capsys):
    configuration = config_of_pairs(tmp_path, folders, model=GREY)
    assert "colour ones, read as grey: 6" in printed(plan_of(configuration, tmp_path), capsys)
    assert run(configuration, tmp_path / "out")["runs"][0]["steps"] == 5


def test_images_that_are_converted_are_reported(tmp_path, folders, capsys):
    write_image(folders / "clean" / "1.png", 20, 27, mode="L")
    assert "grey ones, read as colour: 1" in printed(plan_of(config_of_pairs(tmp_path, folders), tmp_path), capsys)
    import pyvips

    deep = pyvips.Image.black(27, 20, bands=3).cast("ushort").copy(interpretation="rgb16")
    deep.pngsave(str(folders / "degraded" / "2.png"))
    assert "with 16 bits per channel, of which the upper 8 are read: 1" in printed(
        plan_of(config_of_pairs(tmp_path, folders), tmp_path), capsys
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: (root / "clean" / "1.png").unlink(), DataError, r"clean/1\.\*: missing, the clean image of"),
        (lambda root: (root / "degraded" / "1.png").unlink(), DataError, r"clean/1\.png: no degraded image of it"),
        (lambda root: write_image(root / "clean" / "1.png", 20, 28), exda.ImageError, "20 x 27 and 20 x 28 pixels"),
        (lambda root: (root / "clean" / "1.png").write_text(""), exda.ImageError, r"clean/1\.png is no image"),
        (lambda root: (root / "clean").rename(root / "dirty"), DataError, "clean: missing or no folder"),
    ],
)
def test_broken_pairs_are_refused(tmp_path, folders, change, error, message):
    configuration = config_of_pairs(tmp_path, folders)
    change(folders)
    with pytest.raises(error, match=message):
        plan_of(configuration, tmp_path)


def config_of_stages(tmp_path, *sides, model=None):
    stages = [{"patch": side, "batch": 4 - number, "until": number + 1} for number, side in enumerate(sides)]
    del stages[-1]["until"]
    recipe = {"batch": None, "progressive": stages}
    return config(tmp_path, data={"patch": None}, recipe=recipe, **({} if model is None else {"model": model}))


def test_stages_are_printed(tmp_path, capsys):
    lines = printed(plan_of(config_of_stages(tmp_path, 8, 16), tmp_path), capsys)
    for line in (
        "patches of 8 to 16: noise25, haze",
        # 4 pairs, then 4 times 3: 16 of 6 an epoch.
        "5 steps of 3 to 4 pairs, 2.67 epochs",
        "patches of 8, batches of 4, to step 1\n",
        "patches of 16, batches of 3, to step 5\n",
    ):
        assert line in "".join(f"{each.rstrip()}\n" for each in lines.splitlines())


def test_impossible_patches_of_a_stage_are_refused(tmp_path):
    with pytest.raises(exda.ConfigError, match=r"progressive\[1\]\.patch: found 20, restormer takes multiples of 8"):
        plan_of(config_of_stages(tmp_path, 16, 20), tmp_path)
    with pytest.raises(exda.ImageError, match=r"3 of 3 images .*\n.* 20 x 27 pixels, too few for patches of 24"):
        plan_of(config_of_stages(tmp_path, 8, 24, 16), tmp_path)


def test_a_network_of_an_unknown_multiple_is_tried_with_every_patch(tmp_path, monkeypatch):
    monkeypatch.setattr("exda_primitives.workbench.training.plan.known_multiple", lambda net: None)
    with pytest.raises(exda.ConfigError, match="and a patch of 20 pixels cannot compute"):
        plan_of(config_of_stages(tmp_path, 16, 20), tmp_path)


def test_the_same_folder_given_twice_is_refused(tmp_path, folders):
    (tmp_path / "pairs" / "degraded" / "1.png").unlink()
    (tmp_path / "link").symlink_to(folders / "clean")
    source = {"degraded": str(tmp_path / "link"), "clean": str(folders / "clean")}
    configuration = config(tmp_path, data={"source": source, "degradations": []})
    with pytest.raises(exda.ConfigError, match=r"data\.source: .*clean is given as both, degraded and clean"):
        plan_of(configuration, tmp_path)


def test_validation_images_are_checked_too(tmp_path, folders):
    (folders / "clean" / "1.png").write_text("")
    with pytest.raises(exda.ImageError, match=r"1 of 3 images .*\n.*1\.png is no image"):
        plan_of(config(tmp_path, data={"validation": str(folders / "clean")}), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # 7 channels and two heads in the second level.
        ({"dim": 7}, r"model: restormer with \{'dim': 7, .*\} and a patch of 16 pixels cannot compute \(.*\)\.$"),
        ({"out_channels": 4}, r"model: restormer .* cannot compute"),
        ({"inp_channels": 1}, r"gives a shape of \(1, 3, 16, 16\), expected that of the patch, \(1, 1, 16, 16\)"),
    ],
)
def test_impossible_arguments_of_a_network_are_refused(tmp_path, arguments, message):
    configuration = config(tmp_path, model={"name": "restormer", "arguments": TINY | arguments}, primitives=None)
    with pytest.raises(exda.ConfigError, match=message) as caught:
        plan_of(configuration, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_images_with_other_channels_than_the_network_are_refused(tmp_path, monkeypatch):
    from exda_primitives.workbench.data.benchmarks.files import FilePair, PairedFiles

    path = write_image(tmp_path / "a.png", 20, 27)
    files = PairedFiles("some", (FilePair(path, path, "rain"),))
    monkeypatch.setitem(exda.training.data.BENCHMARKS, "cdd11", lambda source, split, whole: files)
    configuration = config(tmp_path, model=GREY, data={"benchmark": "cdd11", "degradations": []})
    with pytest.raises(exda.ConfigError, match=r"data\.source: its images are read with 3 channels, restormer takes 1"):
        plan_of(configuration, tmp_path)


def test_the_trial_leaves_the_network_as_it_was(tmp_path):
    network = plan_of(config(tmp_path), tmp_path).network
    assert all(module.training for module in network.net.modules())
    assert all(parameter.grad is None for parameter in network.net.parameters())
