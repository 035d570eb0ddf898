"""Reading without running code, writing without leaving half a file."""

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
    """Tensors on the CPU and metadata.

    Raises:
        CheckpointError: for anything but a whole safetensors file.
    """
    _check_is_file(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}).") from error


def looks_like_safetensors(path: Path) -> bool:
    """Whether a file begins as one does, with the length of a header and its first brace.

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
    """In the place of what trainers keep beside the weights and nothing here asks for; no argument is looked at."""

    def __new__(cls, *_: object, **__: object) -> Unread:
        """As a pickle calls a class."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """As a pickle fills an object."""


_BESIDE = (
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
"""The classes and functions of which trainers leave objects beside the weights, by the names in a pickle."""

_allowing = threading.Lock()
"""PyTorch's list of what may be read is one for all threads."""


def read_pickle(path: Path) -> Any:
    """What ``torch.load(weights_only=True)`` returns, on the CPU: tensors and plain containers, never code.

    Command-line arguments, paths, and numbers and arrays of NumPy, which trainers keep beside the weights, come as
    ``Unread``: neither they nor anything that such a name in a damaged file may stand for is made.

    Raises:
        CheckpointError: for a file that is damaged, or holds anything else.
    """
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            # Of a pickle protocol that PyTorch does not write: the file is refused below, or it is whole.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except UnpicklingError:
                with _allowing, torch.serialization.safe_globals([(Unread, name) for name in _BESIDE]):
                    return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # Of PyTorch's advice, which is to run the code after all, only the finding is passed on.
        finding = re.search(r"WeightsUnpickler error: *(\S.*)", str(error))
        raise CheckpointError(
            f"{path}: not read, because it is damaged or holds more than tensors and plain containers, which could run "
            f"code{f' ({finding[1].strip()})' if finding else ''}."
        ) from None
    except Exception as error:
        # A damaged pickle is a wrong program: there is no error that running it cannot raise.
        raise CheckpointError(f"{path}: not a whole checkpoint ({type(error).__name__}: {error}).") from error


def write_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Writes a file; an existing one is replaced whole or not at all.

    Raises:
        OSError: when it cannot be written; what was there is still there.
    """
    # Copies: two names may share one storage, which the format refuses.
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as partial:
            save_file(held, partial, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path}: could not be written ({error}).") from error


def _check_is_file(path: Path) -> None:
    # os.path, which takes any name that cannot be one for a file that is not there.
    if not os.path.isfile(path):
        what = "is a folder, not a file" if os.path.isdir(path) else "is not a file that can be read"
        raise CheckpointError(f"{path}: {what if os.path.exists(path) else 'does not exist'}.")
