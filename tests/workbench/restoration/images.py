"""Image files for the tests, made without the code under test."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageCms

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ENDINGS = ("png", "jpg", "tif", "webp")
NAMES = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WebP"}


def pixels(height: int = 20, width: int = 30, channels: int = 3, bits: int = 8) -> NDArray[np.uint8 | np.uint16]:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(0).integers(0, 2**bits, (height, width, channels), dtype)


def vips_image(values: NDArray[np.uint8 | np.uint16]) -> pyvips.Image:
    height, width, channels = values.shape
    wide = values.dtype == np.uint16
    image = pyvips.Image.new_from_memory(values.tobytes(), width, height, channels, "ushort" if wide else "uchar")
    grey = "grey16" if wide else "b-w"
    return image.copy(interpretation=grey if channels < 3 else ("rgb16" if wide else "srgb"))


def save(values: NDArray[np.uint8 | np.uint16], path: Path) -> Path:
    """Writes an image without loss; JPEG with the highest quality."""
    options = {
        ".webp": {"lossless": True, "exact": True},
        ".jpg": {"Q": 100, "subsample_mode": "off"},
    }
    vips_image(values).write_to_file(str(path), **options.get(path.suffix, {}))
    return path


def stored(path: Path) -> NDArray[np.uint8 | np.uint16]:
    """Returns the pixels of a file as they are stored, (rows, columns, channels)."""
    image = pyvips.Image.new_from_file(str(path), revalidate=True)
    return np.array(image.numpy().reshape(image.height, image.width, image.bands))


def exif(orientation: int = 1) -> Image.Exif:
    # Orientation, maker and artist; date and exposure time (EXIF block 34665); latitude (GPS block 34853).
    made = Image.Exif()
    made[274] = orientation
    made[271] = "A maker"
    made[315] = "An artist"
    made.get_ifd(34665)[36867] = "2020:02:29 12:34:56"
    made.get_ifd(34665)[33434] = (1, 250)
    made.get_ifd(34853)[1] = "N"
    made.get_ifd(34853)[2] = (52.0, 30.0, 15.5)
    return made


def claiming(width: int, height: int) -> bytes:
    """Returns a PNG whose header claims this size, and which holds hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
