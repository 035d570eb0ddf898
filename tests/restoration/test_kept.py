"""What a file holds besides pixels: orientation, EXIF, ICC profile, resolution."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageOps
from tests.restoration.pictures import ENDINGS, ICC, exif, pixels, save

from exda_primitives.restoration.exif import exif_of_tiff, tiff_with_exif
from exda_primitives.restoration.images import read, write


def make(path: Path, orientation: int = 1) -> Path:
    """Not by libvips, but for what Pillow leaves out: Exif and GPS in TIFF files."""
    image, options = Image.fromarray(pixels()), {"lossless": True} if path.suffix == ".webp" else {}
    block = exif(orientation)
    image.save(path, exif=block, icc_profile=ICC, dpi=(300, 200), **options)
    if path.suffix == ".tif":
        path.write_bytes(tiff_with_exif(path.read_bytes(), block.tobytes()))
    return path


def seen(path: Path) -> np.ndarray:
    """By Pillow, upright as a viewer shows it."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ENDINGS)
def test_orientation(ending: str, orientation: int, tmp_path: Path) -> None:
    given, out = make(tmp_path / f"in.{ending}", orientation), tmp_path / "out.png"
    expected = seen(given)
    picture = read(given)
    assert np.array_equal((picture.pixels * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    write(picture, out)
    assert np.array_equal(seen(out), expected)
    with Image.open(out) as image:
        assert image.getexif().get(274, 1) == 1
    turned = np.array(picture.resolution if orientation < 5 else picture.resolution[::-1]) * 25.4
    if ending != "webp":
        assert turned == pytest.approx((300, 200), rel=1e-3)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("to", ENDINGS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_exif_and_icc(ending: str, to: str, orientation: int, tmp_path: Path) -> None:
    out = tmp_path / f"out.{to}"
    write(read(make(tmp_path / f"in.{ending}", orientation)), out)
    with Image.open(out) as image:
        assert image.info["icc_profile"] == ICC
        found, expected = image.getexif(), exif()
        assert {tag: found[tag] for tag in (271, 274, 315)} == {271: "A maker", 274: 1, 315: "An artist"}
        for block in (34665, 34853):
            kept = {tag: value for tag, value in found.get_ifd(block).items() if tag in expected.get_ifd(block)}
            assert kept == expected.get_ifd(block)
        image.load()
    # libvips and libtiff, too, read what was appended.
    again = pyvips.Image.new_from_file(str(out), fail_on="warning")
    assert again.avg() > 0
    assert (again.get("orientation") if again.get_typeof("orientation") else 1) == 1


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_resolution(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    write(read(make(tmp_path / f"in.{ending}")), out)
    with Image.open(out) as image:
        # PNG counts pixels per metre; libvips writes a JPEG's as one whole number.
        expected = (300, 300 if ending == "jpg" else 200)
        assert image.info["dpi"] == pytest.approx(expected, rel=1e-4)


def test_xmp(tmp_path: Path) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    image = pyvips.Image.new_from_file(str(save(pixels(), tmp_path / "in.png"))).copy()
    image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    image.write_to_file(str(tmp_path / "xmp.jpg"))
    for ending in ENDINGS:
        write(read(tmp_path / "xmp.jpg"), tmp_path / f"out.{ending}")
        assert pyvips.Image.new_from_file(str(tmp_path / f"out.{ending}")).get("xmp-data") == xmp


def test_an_old_thumbnail_is_not_kept(tmp_path: Path) -> None:
    image = pyvips.Image.new_from_file(str(save(pixels(), tmp_path / "in.png"))).copy()
    thumbnail = (tmp_path / "in.png").read_bytes()[:100] + b"THUMBNAIL"
    image.set_type(pyvips.GValue.blob_type, "jpeg-thumbnail-data", thumbnail)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Make", "A maker")
    image.write_to_file(str(tmp_path / "in.jpg"))
    assert b"THUMBNAIL" in (tmp_path / "in.jpg").read_bytes()
    write(read(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    data = (tmp_path / "out.jpg").read_bytes()
    assert b"A maker" in data
    assert b"THUMBNAIL" not in data


@pytest.mark.parametrize("data", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff" + bytes(30)])
def test_tags_that_cannot_be_read_are_left_behind(data: bytes) -> None:
    assert exif_of_tiff(data) is None


def test_a_big_endian_exif_block_in_a_tiff(tmp_path: Path) -> None:
    block = exif()
    block.endian = ">"
    given = tmp_path / "in.tif"
    Image.fromarray(pixels()).save(given)
    given.write_bytes(tiff_with_exif(given.read_bytes(), block.tobytes()))
    with Image.open(given) as image:
        assert image.getexif()[271] == "A maker"
        assert image.getexif().get_ifd(34665)[33434] == (1, 250)
        assert np.array_equal(np.asarray(image), pixels())
