"""Image files: formats and depths survive, damaged files are refused, and no file is written in part."""

import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image
from tests.workbench.restoration.images import ENDINGS, NAMES, claiming, pixels, save, stored, vips_image

from exda_primitives.errors import ExDAError, ImageError
from exda_primitives.workbench.restoration import images
from exda_primitives.workbench.restoration.images import DecodedImage, read, write


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("ending", "bits"), [("png", 8), ("png", 16), ("tif", 8), ("tif", 16)])
def test_all_bits_and_channels_survive(ending: str, bits: int, channels: int, tmp_path: Path) -> None:
    values = pixels(channels=channels, bits=bits)
    image = read(save(values, tmp_path / f"in.{ending}"))
    assert (image.bits, image.format) == (bits, NAMES[ending])
    assert image.pixels.shape == (1 if channels < 3 else 3, 20, 30)
    assert image.pixels.dtype == np.float32
    assert float(image.pixels.max()) <= 1
    assert (image.alpha is not None) == (channels in (2, 4))
    assert write(image, tmp_path / f"out.{ending}") == ()
    found = stored(tmp_path / f"out.{ending}")
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


@pytest.mark.parametrize("channels", [3, 4])
def test_webp_without_loss(channels: int, tmp_path: Path) -> None:
    values = pixels(channels=channels)
    write(read(save(values, tmp_path / "in.webp")), tmp_path / "out.webp")
    assert np.array_equal(stored(tmp_path / "out.webp"), values)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_not_subsampled(channels: int, tmp_path: Path) -> None:
    # Smooth in each channel, since JPEG blurs edges; the channels differ, which chroma subsampling would show.
    ramp = np.linspace(30, 220, 48)
    values = np.stack(
        [ramp[None] * np.ones((40, 1)), ramp[::-1][None] * np.ones((40, 1)), ramp[:40, None] * np.ones(48)]
    )
    decoded = DecodedImage((values[:channels] / 255).astype(np.float32), bits=8, format="JPEG")
    write(decoded, tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.format == "JPEG"
        found = np.asarray(image, np.float32).reshape(40, 48, channels)
        if channels == 3:
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert np.abs(found - values[:channels].transpose(1, 2, 0)).max() <= 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_pillow_reads_what_is_written(ending: str, tmp_path: Path) -> None:
    values = pixels()
    write(read(save(values, tmp_path / "in.png")), tmp_path / f"out.{ending}")
    with Image.open(tmp_path / f"out.{ending}") as image:
        assert (image.format, image.size, image.mode) == (NAMES[ending].upper(), (30, 20), "RGB")
        if ending != "jpg":
            assert np.array_equal(np.asarray(image), values)


def test_values_are_clipped_and_rounded_to_the_nearest(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.4 / 255, 0.6 / 255, 100.49 / 255, 100.51 / 255, 254.6 / 255, 2.0]])
    write(DecodedImage(values[None], bits=8, format="PNG"), tmp_path / "out.png")
    assert stored(tmp_path / "out.png")[0, :, 0].tolist() == [0, 0, 1, 100, 101, 255, 255]


def test_16_bits_in_another_format(tmp_path: Path) -> None:
    values = pixels(channels=4, bits=16)
    image = read(save(values, tmp_path / "in.png"))
    write(image, tmp_path / "out.tiff")
    assert np.array_equal(stored(tmp_path / "out.tiff"), values)
    assert write(image, tmp_path / "out.webp") == ("16 bit written as 8 bit: WebP holds no more",)
    assert np.array_equal(stored(tmp_path / "out.webp"), np.rint(values / 257).astype(np.uint8))


def test_transparency_is_not_dropped(tmp_path: Path) -> None:
    image = read(save(pixels(channels=4), tmp_path / "in.png"))
    with pytest.raises(ImageError, match="no transparency"):
        write(image, tmp_path / "out.jpg")
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("kind", ["palette", "transparent palette", "one bit"])
def test_palettes_and_bits_are_expanded(kind: str, ending: str, tmp_path: Path) -> None:
    image = Image.fromarray(pixels())
    if kind == "one bit":
        image = image.convert("1")
        image.save(tmp_path / f"in.{ending}")
        expected = image.convert("L")
    else:
        image = image.convert("RGBA") if ending == "tif" and kind.startswith("transparent") else image.quantize(16)
        options = {"transparency": 3} if kind.startswith("transparent") and ending == "png" else {}
        image.save(tmp_path / f"in.{ending}", **options)
        with Image.open(tmp_path / f"in.{ending}") as saved:
            expected = saved.convert("RGBA" if kind.startswith("transparent") else "RGB")
    write(read(tmp_path / f"in.{ending}"), tmp_path / f"out.{ending}")
    with Image.open(tmp_path / f"out.{ending}") as found:
        assert found.mode == expected.mode
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_the_content_decides_what_is_read(tmp_path: Path) -> None:
    save(pixels(), tmp_path / "in.png").rename(tmp_path / "in.jpg")
    assert read(tmp_path / "in.jpg").format == "PNG"


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    save(pixels(), path)
    first = read(path).pixels
    save(255 - pixels(), path)
    assert not np.array_equal(read(path).pixels, first)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_short_is_refused(ending: str, part: float, tmp_path: Path) -> None:
    path = save(pixels(60, 80), tmp_path / f"in.{ending}")
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(ImageError, match=r"cut short|not a PNG"):
        read(path)


def test_a_wrong_bit_is_found(tmp_path: Path) -> None:
    path = save(pixels(60, 80), tmp_path / "in.png")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read(path)


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50), b"<svg/>", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_other_data_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"not a PNG|empty|damaged"):
        read(path)


def test_a_giant_header_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    path.write_bytes(claiming(100_000, 100_000))
    with pytest.raises(ImageError, match="100000 x 100000 pixels"):
        read(path)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    first = Image.fromarray(pixels())
    for ending in ("tif", "webp"):
        first.save(tmp_path / f"in.{ending}", save_all=True, append_images=[first.rotate(180)])
        with pytest.raises(ImageError, match="2 pages or frames"):
            read(tmp_path / f"in.{ending}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cmyk", "colours are cmyk"),
        ("lab", "colours are lab"),
        ("float", "scrgb"),
        ("int", "int"),
        ("five", "channels"),
    ],
)
def test_other_colours_and_number_formats_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    image = vips_image(pixels())
    if kind == "cmyk":
        path = tmp_path / "in.jpg"
        Image.fromarray(pixels()).convert("CMYK").save(path)
    elif kind == "lab":
        image.colourspace("lab").write_to_file(str(path))
    elif kind == "five":
        image.bandjoin([image[0], image[1]]).write_to_file(str(path))
    else:
        image.cast(kind).write_to_file(str(path))
    with pytest.raises(ImageError, match=message):
        read(path)


def test_missing_files_and_folders_raise_their_own_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    image = DecodedImage(np.zeros((3, 2, 2), np.float32), bits=8, format="PNG")
    for name in ("out", "out.gif", "out.txt"):
        with pytest.raises(ImageError, match="must end in one of"):
            write(image, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["writing", "renaming"])
def test_a_failed_write_leaves_the_old_file(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(pixels(), tmp_path / "out.png")
    before, image = path.read_bytes(), read(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if when == "renaming" else Path, "replace" if when == "renaming" else "open", full)
    monkeypatch.setattr(Path, "replace" if when == "renaming" else "open", full)
    with pytest.raises(OSError, match="No space left"):
        write(replace(image, pixels=1 - image.pixels), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    """The error comes from the system itself, by a temporary file that is a link to /dev/full."""
    image = read(save(pixels(), tmp_path / "in.png"))
    (tmp_path / f".out.png.{zlib.crc32(b'out.png'):08x}.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write(image, tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_size_that_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    image = DecodedImage(np.zeros((1, 1, 70000), np.float32), bits=8, format="PNG")
    with pytest.raises(ImageError, match="cannot be written as JPEG"):
        write(image, tmp_path / "out.jpg")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save(pixels(), tmp_path / "in.png")
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with pytest.raises(ExDAError, match=r'pip install .*"pyvips\[binary\]>=3"'):
        images.read(path)


def test_metadata_of_libvips_is_not_needed_to_write(tmp_path: Path) -> None:
    write(
        DecodedImage(np.random.default_rng(0).random((3, 5, 7), np.float32), bits=16, format="PNG"),
        tmp_path / "out.png",
    )
    assert pyvips.Image.new_from_file(str(tmp_path / "out.png")).get_typeof("exif-data") == 0
