"""Metadata that a restored file keeps: orientation, EXIF, XMP, ICC profile, resolution, text."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageOps, PngImagePlugin
from tests.workbench.restoration.images import ENDINGS, ICC, NAMES, exif, pixels, save, stored

from exda_primitives.workbench.data import read_image
from exda_primitives.workbench.restoration.exif import exif_of_tiff, tiff_with_exif
from exda_primitives.workbench.restoration.images import read, write
from exda_primitives.workbench.restoration.png import keywords, text_chunks
from exda_primitives.workbench.shared.image_files import orientation_of_xmp, upright_xmp


def make(path: Path, orientation: int = 1) -> Path:
    """Writes an image with metadata by Pillow; EXIF and GPS of TIFF files, which Pillow leaves out, by the library."""
    image, options = Image.fromarray(pixels()), {"lossless": True} if path.suffix == ".webp" else {}
    block = exif(orientation)
    image.save(path, exif=block, icc_profile=ICC, dpi=(300, 200), **options)
    if path.suffix == ".tif":
        path.write_bytes(tiff_with_exif(path.read_bytes(), block.tobytes()))
    return path


def seen(path: Path) -> np.ndarray:
    """Returns the pixels as Pillow reads them, upright as a viewer shows them."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ENDINGS)
def test_orientation_is_applied_and_reset(ending: str, orientation: int, tmp_path: Path) -> None:
    given, out = make(tmp_path / f"in.{ending}", orientation), tmp_path / "out.png"
    expected = seen(given)
    decoded = read(given)
    assert np.array_equal((decoded.pixels * 255).round().transpose(1, 2, 0), expected)
    write(decoded, out)
    assert np.array_equal(seen(out), expected)
    with Image.open(out) as image:
        assert image.getexif().get(274, 1) == 1
    turned = np.array(decoded.resolution if orientation < 5 else decoded.resolution[::-1]) * 25.4
    if ending != "webp":
        assert turned == pytest.approx((300, 200), rel=1e-3)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("to", ENDINGS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_exif_and_icc_are_kept_in_every_format(ending: str, to: str, orientation: int, tmp_path: Path) -> None:
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
    # libvips and libtiff can read the appended metadata, too.
    again = pyvips.Image.new_from_file(str(out), fail_on="warning")
    assert again.avg() > 0
    assert (again.get("orientation") if again.get_typeof("orientation") else 1) == 1


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_resolution_is_kept(ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    write(read(make(tmp_path / f"in.{ending}")), out)
    with Image.open(out) as image:
        # PNG rounds to pixels per metre; libvips writes one whole number for both directions of a JPEG.
        expected = (300, 300 if ending == "jpg" else 200)
        assert image.info["dpi"] == pytest.approx(expected, rel=1e-4)


def test_xmp_is_kept_in_every_format(tmp_path: Path) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    image = pyvips.Image.new_from_file(str(save(pixels(), tmp_path / "in.png"))).copy()
    image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    image.write_to_file(str(tmp_path / "xmp.jpg"))
    for ending in ENDINGS:
        write(read(tmp_path / "xmp.jpg"), tmp_path / f"out.{ending}")
        assert pyvips.Image.new_from_file(str(tmp_path / f"out.{ending}")).get("xmp-data") == xmp


FORMS = ('tiff:Orientation="{}"', "tiff:Orientation = '{}'", "<tiff:Orientation>{}</tiff:Orientation>")


def with_xmp(path: Path, xmp: str, orientation: int | None = None) -> Path:
    """Writes an image with an orientation in XMP and, if given, another in EXIF or in the TIFF's own tag."""
    image, block = Image.fromarray(pixels()), xmp.encode()
    options = {"exif": exif(orientation)} if orientation else {}
    if path.suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp)
        image.save(path, pnginfo=info, **options)
    elif path.suffix == ".tif":
        image.save(path, tiffinfo={700: block} | ({274: orientation} if orientation else {}))
    else:
        image.save(path, xmp=block, **options, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_exif", [None, 8])
def test_orientation_in_xmp_counts_where_exif_says_nothing(
    ending: str, form: str, in_exif: int | None, tmp_path: Path
) -> None:
    given = with_xmp(tmp_path / f"in.{ending}", f"<x:xmpmeta {form.format(6)}/>", in_exif)
    # Orientation 6: the first row is to be shown at the right; 8: at the left.
    expected = np.rot90(stored(given), 1 if in_exif else -1)
    for found in (read(given).pixels, read_image(given).numpy()):
        assert found.shape == (3, 30, 20)
        # Two decoders of JPEG may round differently.
        assert np.abs((found * 255).transpose(1, 2, 0) - expected).max() <= (2 if ending == "jpg" else 0.01)
    for to in ENDINGS:
        out = tmp_path / f"out.{to}"
        write(read(given), out)
        # The image is upright now: no metadata may turn it again.
        kept = pyvips.Image.new_from_file(str(out)).get("xmp-data").decode()
        assert kept == f"<x:xmpmeta {form.format(1)}/>"
        with Image.open(out) as image:
            assert image.getexif().get(274, 1) == 1


@pytest.mark.parametrize("xmp", ["", "<x:xmpmeta/>", 'tiff:Orientation="9"', 'tiff:Orientation=""', "tiff:Orientation"])
def test_xmp_without_a_valid_orientation_is_left_alone(xmp: str) -> None:
    assert orientation_of_xmp(xmp.encode()) is None
    assert upright_xmp(xmp.encode()) == xmp.encode()


TEXTS = {"Title": "a title", "Creation Time": "2020-02-29", "Author": "Ren\xe9", "Comment": "\u4e2d" * 5}


@pytest.fixture
def described(tmp_path: Path) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, text in TEXTS.items():
        info.add_text(key, text, zip=key == "Title")
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="1"/>')
    Image.fromarray(pixels()).save(tmp_path / "in.png", pnginfo=info)
    return tmp_path / "in.png"


def test_text_in_a_png_is_kept(described: Path, tmp_path: Path) -> None:
    assert write(read(described), tmp_path / "out.png") == ()
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert {key: image.text[key] for key in TEXTS} == TEXTS
    assert (tmp_path / "out.png").read_bytes().count(b"XML:com.adobe.xmp") == 1
    again = pyvips.Image.new_from_file(str(tmp_path / "out.png"), fail_on="warning")
    assert np.array_equal(again.numpy(), pixels())


@pytest.mark.parametrize("to", ENDINGS[1:])
def test_text_that_another_format_cannot_hold_is_reported(to: str, described: Path, tmp_path: Path) -> None:
    (note,) = write(read(described), tmp_path / f"out.{to}")
    assert note == f"text not kept, {NAMES[to]} has no place for it: Title, Creation Time, Author, Comment"


def test_text_after_a_damaged_chunk_is_left_out(described: Path) -> None:
    data = described.read_bytes()
    whole = text_chunks(data)
    assert keywords(whole) == list(TEXTS)
    damaged = bytearray(data)
    damaged[data.index(b"Creation Time")] ^= 1
    assert keywords(text_chunks(bytes(damaged))) == ["Title"]
    for length in range(0, len(data), 7):
        assert whole.startswith(text_chunks(data[:length]))
    assert text_chunks(b"") == b""


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
def test_tags_that_cannot_be_read_are_left_out(data: bytes) -> None:
    assert exif_of_tiff(data) is None


def test_a_big_endian_exif_block_can_be_put_into_a_tiff(tmp_path: Path) -> None:
    block = exif()
    block.endian = ">"
    given = tmp_path / "in.tif"
    Image.fromarray(pixels()).save(given)
    given.write_bytes(tiff_with_exif(given.read_bytes(), block.tobytes()))
    with Image.open(given) as image:
        assert image.getexif()[271] == "A maker"
        assert image.getexif().get_ifd(34665)[33434] == (1, 250)
        assert np.array_equal(np.asarray(image), pixels())
