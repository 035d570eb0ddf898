"""Gives damaged images to the reader of image files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from exda_primitives.errors import ImageError
from exda_primitives.workbench.restoration.images import read

_SIZE = (19, 23)


def whole_images() -> dict[str, bytes]:
    """Returns small intact images of every format and kind that is read: file name, with its ending -> contents."""
    noise = np.random.default_rng(0).integers(0, 256, (*_SIZE, 4), dtype=np.uint8)
    exif = Image.Exif()
    # Tags: orientation (6: rotated by 90 degrees) and image description.
    exif[0x0112], exif[0x010E] = 6, "a description"
    held = {"exif": exif.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    colour, alpha, grey = (Image.fromarray(noise[..., :3]), Image.fromarray(noise), Image.fromarray(noise[..., 0]))
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    return {
        "colour.png": _saved(colour, "PNG", **held),
        "alpha.png": _saved(alpha, "PNG"),
        "grey16.png": _saved(deep, "PNG"),
        "palette.png": _saved(colour.convert("P"), "PNG"),
        "colour.jpg": _saved(colour, "JPEG", **held),
        "progressive.jpg": _saved(colour, "JPEG", progressive=True),
        "grey.jpg": _saved(grey, "JPEG"),
        "colour.tif": _saved(colour, "TIFF", **held),
        "lzw.tif": _saved(colour, "TIFF", compression="tiff_lzw"),
        "grey16.tif": _saved(deep, "TIFF"),
        "colour.webp": _saved(colour, "WEBP", lossless=True),
    }


def crafted_images() -> dict[str, bytes]:
    """Returns images with false or impossible headers: file name, with its ending -> contents."""
    return {
        "huge.png": _png(1 << 30, 1 << 30),
        "wide.png": _png((1 << 31) - 1, 1),
        "large.png": _png(20_000, 20_000),
        "zero.png": _png(0, 0),
        "depth.png": _png(4, 4, bits=3),
        "colours.png": _png(4, 4, colours=7),
        "empty.png": b"",
        "text.png": b"not an image",
        "signature.jpg": b"\xff\xd8\xff",
        "script.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        "bomb.png": _png(16, 16, pixels=bytes(50_000_000)),
        # A directory without entries whose next directory is itself.
        "loop.tif": b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8),
        "far.tif": b"II*\0" + struct.pack("<I", 0xFFFFFFFF),
    }


def attack(path: Path) -> bool:
    """Gives the file to the reader and returns whether it took it.

    Raises:
        AssertionError: if what was read is not a valid image.
        Exception: whatever the reader raises other than an ``ImageError``.
    """
    try:
        image = read(path)
    except ImageError:
        return False
    assert len(image.pixels) in (1, 3), "channels"
    assert np.isfinite(image.pixels).all(), "not finite"
    assert 0 <= image.pixels.min() <= image.pixels.max() <= 1, "out of range"
    assert image.alpha is None or image.alpha.shape == image.pixels.shape[1:], "alpha of another size"
    return True


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(width: int, height: int, bits: int = 8, colours: int = 2, pixels: bytes = bytes(64)) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
