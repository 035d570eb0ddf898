"""Text in PNG files, which libvips keeps only where it is ASCII and its keyword a single word."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_BEGIN = 8
"""Bytes of the signature."""
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_XMP = b"XML:com.adobe.xmp\0"


def text_chunks(data: bytes) -> bytes:
    """The chunks of text in a PNG file, as they are, without XMP, of which libvips takes care.

    Source: PNG (Third Edition), section 5.3: length, name, data and checksum of each.
    """
    return b"".join(chunk for name, chunk in _chunks(data) if name in _TEXT and not chunk[_BEGIN:].startswith(_XMP))


def keywords(chunks: bytes) -> list[str]:
    """Of chunks of text: what each is about."""
    return [chunk[8:].partition(b"\0")[0].decode("latin-1") for _, chunk in _chunks(bytes(_BEGIN) + chunks)]


def png_with_text(data: bytes, chunks: bytes) -> bytes:
    """A PNG file with chunks behind its header, which comes first and is of one length."""
    header = _BEGIN + 25
    return data[:header] + chunks + data[header:]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and all of each chunk, up to the first that is damaged."""
    at = _BEGIN
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + 12 + length]
        if len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            return
        yield name, chunk
        at += len(chunk)
