"""Keeps text chunks of PNG files; libvips keeps only ASCII text with a keyword of a single word."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_BEGIN = 8
"""Bytes of a PNG file's signature."""
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp\0"


def text_chunks(data: bytes) -> bytes:
    """Returns the text chunks of a PNG file, unchanged and concatenated; without XMP, which libvips keeps.

    Source: PNG (Third Edition), section 5.3: a chunk is the length of its data (4 bytes), its name (4), its data, and
    a checksum (4).
    """
    return b"".join(chunk for name, chunk in _chunks(data) if name in _TEXT and not chunk[_BEGIN:].startswith(_XMP))


def keywords(chunks: bytes) -> list[str]:
    """Returns the keyword of each text chunk, such as "Author"."""
    # The zero bytes stand for a signature; the keyword is what follows length and name, up to the first zero byte.
    return [chunk[8:].partition(b"\0")[0].decode("latin-1") for _, chunk in _chunks(bytes(_BEGIN) + chunks)]


def png_with_text(data: bytes, chunks: bytes) -> bytes:
    """Inserts chunks into a PNG file, after its header."""
    # IHDR comes first and has 25 bytes: length (4), name (4), data (13), checksum (4).
    header = _BEGIN + 25
    return data[:header] + chunks + data[header:]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the name and all bytes of each chunk, up to the first that is damaged."""
    at = _BEGIN
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        # 12 bytes besides the data. The checksum covers name and data.
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            return
        yield name, chunk
        at += len(chunk)
