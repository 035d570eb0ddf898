"""Sizes, channels and bits from an image's header are those of its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.workbench.data.images import write_image

from exda_primitives.errors import ImageError
from exda_primitives.workbench.data import read_image
from exda_primitives.workbench.data.headers import read_header

ENDINGS = [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"]
ON_ITS_SIDE = 6
ORIENTATION = 0x0112


def with_orientation(path: Path, orientation: int, **options: object) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.zeros((6, 10, 3), np.uint8)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_sizes(tmp_path: Path, ending: str) -> None:
    path = write_image(tmp_path / f"some{ending}", 12, 17)
    header = read_header(path)
    assert header.size == read_image(path).shape[-2:] == (12, 17)
    assert header[2:4] == (3, 8)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, ending: str) -> None:
    path = with_orientation(tmp_path / f"some{ending}", ON_ITS_SIDE)
    assert read_header(path).size == read_image(path).shape[-2:] == (10, 6)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_grey_and_colours(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new(mode, (5, 4)).save(tmp_path / "some.png")
    assert read_header(tmp_path / "some.png").channels == channels


def test_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5), np.uint16)).save(tmp_path / "grey.png")
    assert read_header(tmp_path / "grey.png")[2:4] == (1, 16)
    import pyvips

    pyvips.Image.black(5, 4, bands=3).cast("ushort").copy(interpretation="rgb16").pngsave(str(tmp_path / "colour.png"))
    assert read_header(tmp_path / "colour.png")[2:4] == (3, 16)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, ending: str) -> None:
    path = write_image(tmp_path / f"some{ending}", 40, 40)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ImageError, match="some"):
        read_header(path)


def test_bytes_after_an_image_do_no_harm(tmp_path: Path) -> None:
    for ending in (".png", ".jpg"):
        path = write_image(tmp_path / f"some{ending}", 12, 17)
        path.write_bytes(path.read_bytes() + b"\0" * 1000)
        assert read_header(path).size == (12, 17)


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("of no interest")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.zeros((4, 5), np.float32)).save(tmp_path / "floats.tif")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    messages = {
        "text.png": "no image that can be read",
        "empty.png": "no image that can be read",
        "floats.tif": "holds floats",
        "link.png": "cannot be read: No such file",
    }
    for name, message in messages.items():
        with pytest.raises(ImageError, match=rf"{name} .*{message}"):
            read_header(tmp_path / name)
