"""The sheet of validation images."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from tests.workbench.training.runs import config, images, run

import exda_primitives as exda
from exda_primitives.workbench.training.data import open_data
from exda_primitives.workbench.training.validation_images import SIDE, ValidationImages, write_sheet

HERE = Fabric(accelerator="cpu", devices=1)


def levels(image):
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)


def test_rows_are_spread_over_the_pairs_and_cropped_at_the_centre():
    shown, added = ValidationImages(HERE, 7, 3), {}
    for index in range(7):
        # The last one is smaller in height and larger in width than a crop.
        added[index] = torch.rand(3, 3, 30 if index == 4 else SIDE + 10, SIDE + 21)
        shown.add(index, *added[index])
    sheet = shown.sheet()
    assert (sheet.shape, sheet.dtype) == ((3 * SIDE, 3 * SIDE, 3), torch.uint8)
    for row, index in enumerate((0, 2, 4)):
        for column in range(3):
            found = sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            image = levels(added[index][column])[:, 10 : 10 + SIDE]
            if index == 4:
                assert torch.equal(found[:30], image)
                assert not found[30:].any()
            else:
                assert torch.equal(found, image[5 : 5 + SIDE])


def test_a_sheet_is_as_large_as_its_crops_and_grey_is_repeated():
    shown = ValidationImages(HERE, 1, 3)
    image = torch.rand(1, 20, 27)
    shown.add(0, image, 3 * image - 1, image)
    sheet = shown.sheet()
    assert sheet.shape == (20, 81, 3)
    assert torch.equal(sheet[:, 27:54], levels((3 * image - 1).expand(3, -1, -1)))


def test_without_images_there_is_no_sheet():
    shown = ValidationImages(HERE, 5, 0)
    shown.add(0, *torch.rand(3, 3, 8, 8))
    assert shown.sheet() is None


class Summed:
    """Stands in for one of two processes: keeps what it sends, and combines it with what the other one sent."""

    device = torch.device("cpu")

    def __init__(self):
        self.others = []
        self.sent = []

    def all_reduce(self, tensor, reduce_op):
        self.sent.append(tensor)
        other = self.others[len(self.sent) - 1] if self.others else torch.zeros_like(tensor)
        return tensor + other if reduce_op == "sum" else torch.maximum(tensor, other)


def test_processes_put_their_rows_together():
    shown = torch.rand(2, 3, 3, 16, 24)
    here, there = Summed(), Summed()
    both = [ValidationImages(each, 2, 2) for each in (here, there)]
    for index, each in enumerate(both):
        each.add(index, *shown[index])
    both[0].sheet()
    there.others = here.sent
    rows = [torch.cat([levels(each) for each in row], 1) for row in shown]
    assert torch.equal(both[1].sheet(), torch.cat(rows))


def test_each_validation_replaces_the_sheet(tmp_path):
    """There is one file, and in the end it shows the results of the final network."""
    data = {"validation": images(tmp_path, "valid.npz", 2, seed=1)}
    configuration = config(tmp_path, data=data, recipe={"validate_every": 1, "validation_images": 2, "steps": 3})
    run(configuration, tmp_path / "out")
    files = [path.name for path in (tmp_path / "out").rglob("*.png")]
    assert files == ["validation.png"]
    sheet = np.array(Image.open(tmp_path / "out" / "validation.png"))
    assert sheet.shape == (2 * 20, 3 * 27, 3)
    net = exda.models.create(checkpoint=tmp_path / "out" / "weights.safetensors")
    # Four pairs: the first one is of noise, the third of haze.
    for row, index in enumerate((0, 2)):
        degraded, clean, *_ = open_data(configuration, 3).validation[index]
        with torch.no_grad():
            restored = net(torch.nn.functional.pad(degraded[None], (0, 5, 0, 4), mode="reflect"))[0, :, :20, :27]
        expected = np.concatenate([levels(each) for each in (degraded, restored, clean)], 1)
        assert np.abs(sheet[row * 20 : row * 20 + 20] - expected.astype(int)).max() <= 1
    run(config(tmp_path, data=data, recipe={"validation_images": 0}), tmp_path / "none")
    assert not (tmp_path / "none" / "validation.png").exists()


def test_a_number_of_images_below_zero_is_refused(tmp_path):
    with pytest.raises(exda.ConfigError, match=r"recipe\.validation_images: found -1, expected a number of at least 0"):
        config(tmp_path, recipe={"validation_images": -1})


def test_a_sheet_is_written_whole_or_not_at_all(tmp_path):
    write_sheet(tmp_path / "a.png", torch.zeros(4, 6, 3, dtype=torch.uint8))
    with pytest.raises(OSError, match=r"none/a\.png"):
        write_sheet(tmp_path / "none" / "a.png", torch.zeros(4, 6, 3, dtype=torch.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
