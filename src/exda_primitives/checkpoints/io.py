"""Reads files without running code from them, and writes files without ever leaving half a file."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files import atomic_write


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors, on the CPU, and the metadata of a safetensors file.

    Raises:
        CheckpointError: for anything but a complete safetensors file.
    """
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}).") from error


def looks_like_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors does: with the header's length (8 bytes, little-endian) and a brace.

    Raises:
        CheckpointError: when it cannot be read.
    """
    _check_is_file(path)
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") <= path.stat().st_size - 8


class Unread:
    """Stands for an object that a trainer saved with the weights and that is not needed; it ignores all arguments."""

    def __new__(cls, *_: object, **__: object) -> Unread:
        """Called by a pickle to create the object."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Called by a pickle to fill the object."""


_UNREAD_NAMES = (
    "argparse.Namespace",
    *(
        f"pathlib.{kind}"
        for kind in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    ),
    *(f"pathlib._local.{kind}" for kind in ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray")),
    "_codecs.encode",
    *(f"builtins.{name}" for name in ("slice", "range", "frozenset")),
)
"""Names, as in a pickle, of classes and functions that make objects which trainers save with the weights."""

_allowing_names = threading.Lock()
"""Held while PyTorch's list of allowed names, which all threads share, is extended."""


def read_pickle(path: Path) -> Any:
    """Returns what ``torch.load(weights_only=True)`` returns, on the CPU: tensors and plain containers, never code.

    Command-line arguments, paths, and NumPy numbers and arrays, which trainers save with the weights, come as
    ``Unread``: the objects behind these names are never created, so that a malicious file cannot misuse them.

    Raises:
        CheckpointError: for a file that is damaged, or holds anything else.
    """
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            # The warning about an unusual pickle protocol says nothing: the file is read completely, or refused below.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError:
                # Most files need no further names: only the others take the lock and are read twice.
                with _allowing_names, torch.serialization.safe_globals([(Unread, name) for name in _UNREAD_NAMES]):
                    return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # PyTorch's message goes on to advise loading with weights_only=False; only its finding is passed on.
        finding = re.search(r"WeightsUnpickler error: *(\S.*)", str(error))
        raise CheckpointError(
            f"{path}: not read, because it is damaged or holds more than tensors and plain containers, which could run "
            f"code{f' ({finding[1].strip()})' if finding else ''}."
        ) from None
    except Exception as error:
        # Unpickling damaged data can raise any exception.
        raise CheckpointError(f"{path}: not a whole checkpoint ({type(error).__name__}: {error}).") from error


def write_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Writes a safetensors file; an existing file is replaced whole or not at all.

    Raises:
        OSError: when it cannot be written; an existing file is unchanged.
    """
    # Copies, since the format refuses two names that share one storage.
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as partial:
            save_file(held, partial, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: could not be written ({error}).") from error


def _check_is_file(path: Path) -> None:
    # os.path returns False for an impossible name (one that is too long), where Path raises.
    if not os.path.isfile(path):
        what = "is a folder, not a file" if os.path.isdir(path) else "is not a file that can be read"
        raise CheckpointError(f"{path}: {what if os.path.exists(path) else 'does not exist'}.")
