"""Clean images from a folder, a zip or an npz, each read when it is asked for."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, NoReturn, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ImageError, some_of
from ..shared.files import files_below, is_nonregular_file
from .decode import Channels, decode, from_array, is_image, read_image
from .headers import Header, header_of, read_header

MAX_BYTES = 2**30
"""Largest unpacked size of a file in a zip; one that claims more is refused before anything is unpacked."""


class Images(ABC, Sequence[Tensor]):
    """A sequence of images (C, H, W) float32 in [0, 1], sorted by name; see ``open_images``.

    It may be copied and sent to other processes, each of which opens its own files.

    Attributes:
        path: folder or file that holds the images.
        names: names of the images, relative to it.
        left_out: names of the other files or arrays there, which are not images.
        channels: 3 for RGB, 1 for grey.
    """

    def __init__(self, path: Path, names: Sequence[str], left_out: Sequence[str], channels: Channels) -> None:
        if not names:
            there = f"only {some_of(left_out)}" if left_out else "nothing at all"
            raise ImageError(f"no image in {path}; there is {there}")
        self.path, self.names, self.left_out, self.channels = path, tuple(names), tuple(left_out), channels

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self._read(one) for one in range(*index.indices(len(self)))]
        return self._read(range(len(self))[index])

    @abstractmethod
    def _read(self, index: int) -> Tensor: ...

    @abstractmethod
    def header(self, index: int) -> Header:
        """Returns the header of an image.

        Raises:
            ImageError: it is missing or no image. In a zip or an npz, damage after the header goes unnoticed.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}: {len(self)} images, {len(self.left_out)} other files left out)"


class FolderImages(Images):
    """All images below a folder; links are followed."""

    def __init__(self, path: Path, channels: Channels) -> None:
        files = sorted(file.relative_to(path).as_posix() for file in files_below(path, _refuse))
        super().__init__(path, *_sorted_out(files), channels)

    def _read(self, index: int) -> Tensor:
        return read_image(self.path / self.names[index], self.channels)

    def header(self, index: int) -> Header:
        """Returns the header of an image file."""
        return read_header(self.path / self.names[index])


class ZipImages(Images):
    """All images in a zip; nothing is unpacked to disk."""

    def __init__(self, path: Path, channels: Channels) -> None:
        self._archive: zipfile.ZipFile | None = None
        self._process = 0
        with _opened_zip(path) as archive:
            # Not ZipInfo.is_dir, which fails on an empty name.
            members = sorted(name for name in archive.namelist() if not name.endswith("/"))
        outside = [name for name in members if _is_outside(name)]
        if outside:
            raise ImageError(f"{path} names files outside of itself: {some_of(outside)}; it is not read")
        twice = sorted({name for name, after in pairwise(members) if name == after})
        if twice:
            raise ImageError(f"{path} holds several files under one name: {some_of(twice)}")
        super().__init__(path, *_sorted_out(members), channels)

    def _read(self, index: int) -> Tensor:
        with self._opened(index) as (file, name, _):
            return decode(file, name, self.channels)

    def header(self, index: int) -> Header:
        """Returns the header of an image, with the checksum that the zip stores as its stamp."""
        with self._opened(index) as (file, name, checksum):
            return header_of(file, name, checksum, whole=True)

    @contextmanager
    def _opened(self, index: int) -> Iterator[tuple[IO[bytes], str, int]]:
        """Opens an image; yields the file, its name for messages, and its checksum."""
        name = f"{self.path}:{self.names[index]}"
        try:
            member = self._own_archive().getinfo(self.names[index])
            if member.file_size > MAX_BYTES:
                raise ImageError(f"{name} has {member.file_size} bytes unpacked, at most {MAX_BYTES} are read")
            with self._own_archive().open(member) as file:
                yield file, name, member.CRC
        # RuntimeError: encrypted; its subclass NotImplementedError: a compression that Python does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, RuntimeError) as error:
            raise ImageError(f"{name} cannot be read ({error})") from error

    def _own_archive(self) -> zipfile.ZipFile:
        # A forked process shares the file position with its parent and must not move it.
        if self._archive is None or self._process != os.getpid():
            self._archive, self._process = _opened_zip(self.path), os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archive": None}


class ArrayImages(Images):
    """All images in an npz: uint8 arrays (N, H, W), (N, H, W, C) or (H, W, C), with C 1, 3 or 4."""

    def __init__(self, path: Path, channels: Channels) -> None:
        self._places: list[tuple[str, int | None]] = []
        self._arrays: dict[str, NDArray[Any]] = {}
        self._headers: list[Header] = []
        names, left_out = [], []
        for key, (shape, dtype, checksum) in _npz_headers(path).items():
            # Labels, the source, and the like.
            if len(shape) < 2 and not dtype.hasobject:
                left_out.append(key)
                continue
            # A last axis of 1, 3 or 4 is taken for channels: (H, W, C) is one image, else (N, H, W) is a stack.
            single = len(shape) == 3 and shape[-1] in (1, 3, 4)
            stack = (len(shape) == 3 and not single) or (len(shape) == 4 and shape[-1] in (1, 3, 4))
            if dtype != np.uint8 or not (single or stack):
                raise ImageError(
                    f"{key} in {path} has shape {shape} of {dtype}; expected uint8 of shape (N, H, W), (N, H, W, C) or "
                    "(H, W, C) with 1, 3 or 4 channels"
                )
            if 0 in shape[0 if single else 1 :]:
                raise ImageError(f"{key} in {path} has shape {shape}: images without pixels")
            places: list[tuple[str, int | None]] = [(key, None)] if single else [(key, i) for i in range(shape[0])]
            # Indices padded with zeros, so that names sort as the images do.
            digits = len(str(shape[0] - 1))
            names += [key if index is None else f"{key}/{index:0{digits}d}" for _, index in places]
            self._places += places
            height, width, *colours = shape[0 if single else 1 :]
            self._headers += [Header(height, width, 3 if max(colours, default=1) > 1 else 1, 8, checksum)] * len(places)
        super().__init__(path, names, left_out, channels)

    def _read(self, index: int) -> Tensor:
        key, place = self._places[index]
        if key not in self._arrays:
            try:
                with np.load(self.path, allow_pickle=False) as arrays:
                    self._arrays[key] = arrays[key]
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise ImageError(f"{key} in {self.path} cannot be read ({error})") from error
        array = self._arrays[key]
        return from_array(array if place is None else array[place], self.channels)

    def header(self, index: int) -> Header:
        """Returns the header of an image, from its array's shape and checksum."""
        return self._headers[index]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}


class SelectedImages(Images):
    """Some images of a sequence.

    Args:
        images: the sequence.
        indices: indices of the images to select, in their order.
    """

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self._images, self._indices = images, tuple(indices)
        names = [images.names[index] for index in indices]
        super().__init__(images.path, names, images.left_out, images.channels)

    def _read(self, index: int) -> Tensor:
        return self._images[self._indices[index]]

    def header(self, index: int) -> Header:
        """Returns the header of an image."""
        return self._images.header(self._indices[index])


def open_images(path: str | Path, channels: Channels = 3) -> Images:
    """Opens the images of a folder and its subfolders, of a zip, or of the arrays of an npz, sorted by name.

    Args:
        path: a folder, in which links are followed, or a .zip or .npz file. Image files are recognised by their
            ending: PNG, JPEG, BMP, TIFF, WebP, PGM, PPM.
        channels: 3 for RGB or 1 for grey; all images are converted.

    Raises:
        ImageError: the path is none of these, cannot be read, or holds no image. A single image that cannot be read
            raises it only when it is asked for.

    Examples:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/some.npz", digits=np.zeros((10, 28, 28), np.uint8), labels=np.arange(10))
        ...     images = open_images(f"{folder}/some.npz", channels=1)
        ...     len(images), images.names[3], images[3].shape, images.left_out
        (10, 'digits/3', torch.Size([1, 28, 28]), ('labels',))
    """
    path = Path(path)
    if path.is_dir():
        return FolderImages(path, channels)
    if not path.exists():
        raise ImageError(f"{path} does not exist")
    if is_nonregular_file(path):
        raise ImageError(f"{path} is no regular file")
    kinds = {".zip": ZipImages, ".npz": ArrayImages}
    if path.suffix.lower() not in kinds:
        raise ImageError(f"{path} is neither a folder nor a .zip or .npz")
    return kinds[path.suffix.lower()](path, channels)


def _refuse(folder: Path, error: OSError) -> NoReturn:
    raise ImageError(f"{folder} cannot be looked into ({error.strerror or error})") from error


def _sorted_out(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits file names into images and other files."""
    return [name for name in files if is_image(name)], [name for name in files if not is_image(name)]


def _is_outside(name: str) -> bool:
    """Returns whether a zip member's name points outside of the zip: absolute, with a drive, or with ``..``."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) is not None


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise ImageError(f"{path} is no zip that can be read ({error})") from error


class _ArrayHeader(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    checksum: int


def _npz_headers(path: Path) -> dict[str, _ArrayHeader]:
    """Returns shape, dtype and checksum of every array by name, without reading the arrays."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    headers = {}
    with _opened_zip(path) as archive:
        for member in archive.infolist():
            name = member.filename
            try:
                with archive.open(member) as file:
                    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, RuntimeError) as error:
                raise ImageError(f"{name} in {path} is no array that can be read ({error})") from error
            headers[name.removesuffix(".npy")] = _ArrayHeader(shape, dtype, member.CRC)
    return headers
