"""Images labelled with their degradation."""

from pathlib import Path

import pytest
import torch
from tests.workbench.data.images import write_image

import exda_primitives as exda
from exda_primitives.workbench.data import degrade, open_images
from exda_primitives.workbench.inspection.images import degraded, labelled_by_folder
from exda_primitives.workbench.shared.crops import centre


def test_clean_images_are_degraded_and_labelled(tmp_path: Path) -> None:
    for index in range(2):
        write_image(tmp_path / f"{index}.png", 20, 31, seed=index)
    found = degraded(open_images(tmp_path), ["noise25", "clean"], size=16, seed=5)
    assert found.labels == ("noise25", "noise25", "clean", "clean")
    assert found.kinds == ["noise25", "clean"]
    assert [found.name(index) for index in range(4)] == ["0.png", "1.png"] * 2
    assert found.one_of_each() == [0, 2]
    images = list(found)
    clean = [centre(image, 16) for image in open_images(tmp_path)]
    assert torch.equal(torch.stack(images[2:]), torch.stack(clean))
    assert torch.equal(images[1], degrade(clean[1], "noise25", seed=6))
    # Each image is degraded differently, the same image always alike.
    assert not torch.allclose(images[0] - clean[0], images[1] - clean[1])
    assert torch.equal(found[0], images[0])


@pytest.mark.parametrize(("names", "message"), [(["rian"], "'rian'"), (["rain", "rain"], "named 2 times")])
def test_bad_names_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(exda.ConfigError, match=message):
        degraded(open_images(tmp_path), names, 16, 0)


def test_images_are_labelled_by_their_folder(tmp_path: Path) -> None:
    for name in ("rain/a.png", "rain/deep/b.png", "haze/a.png"):
        write_image(tmp_path / name)
    found = labelled_by_folder(open_images(tmp_path), size=16)
    assert found.labels == ("haze", "rain", "rain")
    assert torch.equal(found[0], open_images(tmp_path)[0])
    write_image(tmp_path / "loose.png")
    with pytest.raises(exda.ImageError, match=r"loose\.png lies in none"):
        labelled_by_folder(open_images(tmp_path), size=16)


def test_images_are_cropped_around_the_centre() -> None:
    image = torch.arange(7 * 4).reshape(1, 7, 4).float()
    assert torch.equal(centre(image, 3), image[:, 2:5, :3])
    assert torch.equal(centre(image, 9), image)
