"""Reads image files strictly and writes them atomically, keeping their metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ImageError, some_of
from ...files import write_bytes
from ..shared.image_files import FORMATS, MAX_PIXELS, orientation_of_xmp, upright, upright_xmp
from ..shared.packages import pyvips
from .exif import exif_of_tiff, orientation_of_tiff, tiff_with_exif, xmp_of_tiff
from .png import keywords, png_with_text, text_chunks
from .tiles import Pixels

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
"""First bytes of a file -> format; "II+" and "MM+" are BigTIFF. WebP has its name at byte 8, see ``_format_of``."""
_DEPTHS = {"PNG": (8, 16), "JPEG": (8,), "TIFF": (8, 16), "WebP": (8,)}
"""Format -> bits per channel that are written."""
_TOP = {8: 255, 16: 65535}
"""Bits -> largest value, which stands for 1.0."""
_KEPT = ("exif-", "icc-profile-data", "xmp-data", "iptc-data", "photoshop-data", "resolution-unit")
"""First letters of the libvips fields that are copied from the input to the output."""
# Bits of libvips' VipsForeignKeep: EXIF 1, XMP 2, IPTC 4, ICC 8, other 16. For an image without EXIF, the first keeps
# libvips from writing an EXIF block of its own (resolution, orientation).
_KEEP_ALL_BUT_EXIF, _KEEP_ALL = 0b11110, 0b11111
_COLOURS = {"b-w", "grey16", "srgb", "rgb", "rgb16"}
"""libvips' names of the colour spaces that are read."""


@dataclass(frozen=True)
class DecodedImage:
    """An image, turned upright, with its metadata.

    Attributes:
        pixels: (C, H, W) float32 in [0, 1]; C is 1 (grey) or 3, in the colour space of the ICC profile.
        bits: bits per channel in the file, 8 or 16.
        format: ``"PNG"``, ``"JPEG"``, ``"TIFF"`` or ``"WebP"``.
        alpha: (H, W) uint8 or uint16, with the file's values; None without transparency.
        resolution: pixels per millimetre, horizontally and vertically.
        metadata: libvips' fields, name -> (type, value): ICC profile, EXIF, XMP, IPTC.
        text: a PNG file's text chunks, unchanged; empty for other formats.
    """

    pixels: Pixels
    bits: int
    format: str
    alpha: NDArray[Any] | None = None
    resolution: tuple[float, float] = (1.0, 1.0)
    metadata: Mapping[str, tuple[int, Any]] = field(default_factory=dict)
    text: bytes = b""


def read(path: Path) -> DecodedImage:
    """Reads a PNG, JPEG, TIFF or WebP file of 8 or 16 bits per channel; palettes are expanded to RGB.

    The content decides on the format, not the file's name.

    Raises:
        ImageError: for a file that is damaged or cut short, another format, several pages or frames, CMYK, Lab, values
            that are not 8- or 16-bit integers, channels other than grey or RGB (and alpha), and too many pixels.
        OSError: if the file cannot be read.
    """
    data = path.read_bytes()
    kind = _format_of(data)
    if kind is None:
        raise ImageError("not a PNG, JPEG, TIFF or WebP file" if data else "the file is empty")
    vips = pyvips()
    try:
        # Sequential access, so that libvips does not cache the image. Strict: by default it reads damaged files.
        load = getattr(vips.Image, f"{kind.lower()}load_buffer")
        image = load(data, access="sequential", fail_on="error")
        _check(image)
        stored = image.numpy().reshape(image.height, image.width, image.bands)
        metadata = _metadata(image)
        orientation = image.get("orientation") if image.get_typeof("orientation") else None
    except vips.Error as error:
        raise ImageError(f"damaged or cut short ({_last_line(error)})") from error
    if kind == "TIFF":
        # libvips reads neither EXIF nor every form of XMP from a TIFF, and gives 1 for a missing orientation.
        orientation = orientation_of_tiff(data)
        blocks = {"exif-data": exif_of_tiff(data), "xmp-data": xmp_of_tiff(data)}
        metadata |= {name: (vips.GValue.blob_type, block) for name, block in blocks.items() if block}
    if "xmp-data" in metadata:
        gtype, xmp = metadata["xmp-data"]
        # EXIF's orientation wins. The pixels are stored upright from now on, and XMP has to agree.
        orientation = orientation or orientation_of_xmp(xmp)
        metadata["xmp-data"] = (gtype, upright_xmp(xmp))
    values, resolution = upright(stored, orientation or 1), (image.xres, image.yres)
    colours = image.bands - 1 if image.bands in (2, 4) else image.bands
    bits = 8 * stored.dtype.itemsize
    return DecodedImage(
        pixels=np.ascontiguousarray(values[..., :colours].transpose(2, 0, 1), np.float32) / np.float32(_TOP[bits]),
        bits=bits,
        format=kind,
        alpha=np.ascontiguousarray(values[..., -1]) if colours < image.bands else None,
        resolution=resolution[::-1] if orientation in (5, 6, 7, 8) else resolution,
        metadata=metadata,
        text=text_chunks(data) if kind == "PNG" else b"",
    )


def format_for(path: Path) -> str:
    """Returns the format to write, by the suffix of the file's name.

    Raises:
        ImageError: for a suffix that is not in ``FORMATS``.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise ImageError(f"{path.name!r} must end in one of {', '.join(FORMATS)}") from None


def write(decoded: DecodedImage, path: Path) -> tuple[str, ...]:
    """Writes an image atomically: an existing file is replaced only when the new one is complete.

    The suffix decides on the format. Values are rounded to the nearest. JPEG is written with quality 95 and full colour
    resolution, the other formats without loss.

    Returns:
        A sentence for each thing that the format could not hold.

    Raises:
        ImageError: for transparency in a JPEG, and for an image that the format cannot hold.
        OSError: if the file cannot be written; an existing file is unchanged.
    """
    kind = format_for(path)
    if kind == "JPEG" and decoded.alpha is not None:
        raise ImageError("JPEG holds no transparency; write PNG or TIFF")
    bits = min(decoded.bits, max(_DEPTHS[kind]))
    data = _encoded(decoded, kind, bits)
    write_bytes(path, data)
    notes = {
        f"{decoded.bits} bit written as {bits} bit: {kind} holds no more": bits < decoded.bits,
        f"text not kept, {kind} has no place for it: {some_of(keywords(decoded.text))}": (
            bool(decoded.text) and kind != "PNG"
        ),
    }
    return tuple(note for note, holds in notes.items() if holds)


def _format_of(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)


def _check(image: Any) -> None:
    """Refuses, from the header alone, what could not be restored or would lose something."""
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    refusals = {
        f"{image.width} x {image.height} pixels; at most {MAX_PIXELS} in all are read": (
            image.width * image.height > MAX_PIXELS
        ),
        f"{pages} pages or frames; expected a single one: split the file first": pages > 1,
        f"colours are {image.interpretation}; convert it to RGB or grey first": image.interpretation not in _COLOURS,
        f"values are {image.format}; unsigned integers of 8 or 16 bits are read": image.format
        not in ("uchar", "ushort"),
        f"{image.bands} channels; grey or RGB, with or without alpha, are read": not (
            image.bands in (1, 3) or (image.bands in (2, 4) and image.hasalpha())
        ),
    }
    for reason, holds in refusals.items():
        if holds:
            raise ImageError(reason)


def _metadata(image: Any) -> dict[str, tuple[int, Any]]:
    return {name: (image.get_typeof(name), image.get(name)) for name in image.get_fields() if name.startswith(_KEPT)}


def _encoded(decoded: DecodedImage, kind: str, bits: int) -> bytes:
    top = _TOP[bits]
    dtype = np.uint8 if bits == 8 else np.uint16
    bands = [(decoded.pixels.clip(0, 1) * np.float32(top)).round().astype(dtype).transpose(1, 2, 0)]
    if decoded.alpha is not None:
        # 65535 = 257 * 255: divides by 257, rounded to the nearest.
        alpha = (
            decoded.alpha if bits == decoded.bits else ((decoded.alpha.astype(np.uint32) + 128) // 257).astype(dtype)
        )
        bands.append(alpha[..., None])
    values = np.ascontiguousarray(np.concatenate(bands, -1))
    height, width, count = values.shape
    vips = pyvips()
    grey = len(decoded.pixels) == 1
    image = vips.Image.new_from_memory(values.data, width, height, count, "uchar" if bits == 8 else "ushort").copy(
        interpretation=("b-w" if grey else "srgb") if bits == 8 else ("grey16" if grey else "rgb16"),
        xres=decoded.resolution[0],
        yres=decoded.resolution[1],
    )
    for name, (gtype, value) in decoded.metadata.items():
        image.set_type(gtype, name, value)
    # Removes the old thumbnail, which shows the image before restoration, and not upright.
    image.set_type(vips.GValue.blob_type, "jpeg-thumbnail-data", b"")
    # The pixels are upright now: overrides the old orientation in the EXIF block.
    image.set_type(vips.GValue.gint_type, "orientation", 1)
    exif = decoded.metadata.get("exif-data")
    try:
        data = _SAVERS[kind](image, _KEEP_ALL if exif else _KEEP_ALL_BUT_EXIF)
    except vips.Error as error:
        raise ImageError(f"cannot be written as {kind} ({_last_line(error)})") from error
    if kind == "PNG":
        return png_with_text(data, decoded.text)
    return tiff_with_exif(data, exif[1]) if kind == "TIFF" and exif else data


_SAVERS: Mapping[str, Callable[[Any, int], bytes]] = {
    "PNG": lambda image, keep: image.pngsave_buffer(keep=keep),
    "JPEG": lambda image, keep: image.jpegsave_buffer(keep=keep, Q=95, subsample_mode="off"),
    "TIFF": lambda image, keep: image.tiffsave_buffer(keep=keep, compression="deflate", predictor="horizontal"),
    "WebP": lambda image, keep: image.webpsave_buffer(keep=keep, lossless=True, exact=True),
}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
