"""Pictures with the degradation that each has."""

from pathlib import Path

import pytest
import torch
from tests.workbench.data.pictures import write_picture

import exda_primitives as exda
from exda_primitives.workbench.data import degrade, open_pictures
from exda_primitives.workbench.inspection.pictures import cropped, degraded, labelled_by_folder


def test_degraded(tmp_path: Path) -> None:
    for index in range(2):
        write_picture(tmp_path / f"{index}.png", 20, 31, seed=index)
    found = degraded(open_pictures(tmp_path), ["noise25", "clean"], size=16, seed=5)
    assert found.labels == ("noise25", "noise25", "clean", "clean")
    assert found.kinds == ["noise25", "clean"]
    assert [found.name(index) for index in range(4)] == ["0.png", "1.png"] * 2
    assert found.one_of_each() == [0, 2]
    pictures = list(found)
    clean = [cropped(picture, 16) for picture in open_pictures(tmp_path)]
    assert torch.equal(torch.stack(pictures[2:]), torch.stack(clean))
    assert torch.equal(pictures[1], degrade(clean[1], "noise25", seed=6))
    # Each picture is degraded differently, the same picture always alike.
    assert not torch.allclose(pictures[0] - clean[0], pictures[1] - clean[1])
    assert torch.equal(found[0], pictures[0])


@pytest.mark.parametrize(("names", "message"), [(["rian"], "'rian'"), (["rain", "rain"], "named 2 times")])
def test_names(tmp_path: Path, names: list[str], message: str) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(exda.ConfigError, match=message):
        degraded(open_pictures(tmp_path), names, 16, 0)


def test_labelled_by_folder(tmp_path: Path) -> None:
    for name in ("rain/a.png", "rain/deep/b.png", "haze/a.png"):
        write_picture(tmp_path / name)
    found = labelled_by_folder(open_pictures(tmp_path), size=16)
    assert found.labels == ("haze", "rain", "rain")
    assert torch.equal(found[0], open_pictures(tmp_path)[0])
    write_picture(tmp_path / "loose.png")
    with pytest.raises(exda.ImageError, match=r"loose\.png lies in none"):
        labelled_by_folder(open_pictures(tmp_path), size=16)


def test_cropped() -> None:
    picture = torch.arange(7 * 4).reshape(1, 7, 4).float()
    assert torch.equal(cropped(picture, 3), picture[:, 2:5, :3])
    assert torch.equal(cropped(picture, 9), picture)
