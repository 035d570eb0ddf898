"""Reads one image, from a file or an array, as a tensor."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor

from ...errors import ImageError
from ..shared.files import is_nonregular_file
from ..shared.image_files import MAX_PIXELS, SUFFIXES, orientation_of_xmp, upright

Channels = Literal[1, 3]

_WHITE_OF_16_BITS = 65535
# Pillow's modes of grey with more than 8 bits.
GREY16 = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def is_image(name: str) -> bool:
    """Returns whether a name is that of an image file, by its ending; hidden files and folders do not count."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def read_image(path: Path, channels: Channels = 3) -> Tensor:
    """Reads an image file and turns it upright, with 8 bits per channel (grey up to 16); transparency is dropped.

    Args:
        path: the image file.
        channels: 3 for RGB, 1 for grey; the image is converted.

    Returns:
        (channels, H, W) float32 in [0, 1].

    Raises:
        ImageError: the file is missing, damaged, no image, or too large.
    """
    if is_nonregular_file(path):
        raise ImageError(f"{path} is no regular file")
    try:
        with path.open("rb") as file:
            return decode(file, str(path), channels)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def decode(file: IO[bytes], name: str, channels: Channels) -> Tensor:
    """Decodes an open file; ``name`` is used in messages only.

    Raises:
        ImageError: as ``read_image``.
    """
    with opened(file, name) as image:
        return _as_tensor(image, name, channels)


@contextmanager
def opened(file: IO[bytes], name: str) -> Iterator[Image.Image]:
    """Opens an image and reads only its header; errors within the ``with`` block are raised as ImageError.

    Raises:
        ImageError: as ``read_image``.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{name} has {image.width} x {image.height} pixels, at most {MAX_PIXELS} are read")
            yield image
    except ImageError:
        raise
    # All that Pillow may raise on damaged files.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        OverflowError,
        TypeError,
        IndexError,
        KeyError,
        Image.DecompressionBombError,
    ) as error:
        raise ImageError(f"{name} is no image that can be read ({type(error).__name__}: {error})") from error


def from_array(array: NDArray[Any], channels: Channels) -> Tensor:
    """Converts a uint8 array (H, W) or (H, W, C), with C 1, 3 or 4, into what ``read_image`` returns."""
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return _as_tensor(Image.fromarray(np.ascontiguousarray(array)), "", channels)


def _as_tensor(image: Image.Image, name: str, channels: Channels) -> Tensor:
    if image.mode == "F":
        raise ImageError(f"{name} holds floats, whose range is unknown; 8 or 16 bits are read")
    orientation = _orientation(image)
    if image.mode in GREY16:
        values = upright(np.array(image), orientation).astype(np.float32)
        if values.min() < 0 or values.max() > _WHITE_OF_16_BITS:
            raise ImageError(f"{name} holds numbers of 32 bits; 8 or 16 bits are read")
        return torch.from_numpy(values / _WHITE_OF_16_BITS)[None].repeat(channels, 1, 1)
    values = np.array(image.convert("L" if channels == 1 else "RGB"))
    values = np.ascontiguousarray(upright(values.reshape(*values.shape[:2], channels), orientation))
    return torch.from_numpy(values).permute(2, 0, 1).float() / 255


def _orientation(image: Image.Image) -> int:
    """Loads the pixels and returns the EXIF orientation still to apply, 1 for none."""
    before = image.getexif().get(ExifTags.Base.Orientation)
    image.load()
    after = image.getexif().get(ExifTags.Base.Orientation)
    # For some formats Pillow turns the image itself on loading, and then removes the tag.
    if before and not after:
        return 1
    # Pillow uses the key "xmp" since version 11.
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    return after or orientation_of_xmp(xmp.encode() if isinstance(xmp, str) else xmp) or 1
