"""Loads the digits that one of the experiments restores."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from ...extras import require_extra
from ..shared.files import is_nonregular_file

DEFAULT_FOLDER = Path("data")
"""Default folder of torchvision's MNIST, the same as in torchvision's own examples."""


@dataclass(frozen=True)
class Digits:
    """Grey images of digits.

    Attributes:
        images: (n, 1, H, W) float32 in [0, 1].
        source: where they come from, in words; kept in the result.
        sha256: hexadecimal SHA-256 of the images' bytes.
    """

    images: Tensor
    source: str
    sha256: str


def load_digits(data: Path | None = None, *, download: bool = False) -> Digits:
    """Loads digits from a file, from torchvision's MNIST, or from scikit-learn, which ships small ones.

    Args:
        data: an .npz with an array ``images``, (n, H, W), uint8 or floats in [0, 1]; or a folder with torchvision's
            MNIST (torchvision's argument ``root``). By default ``data`` in the working directory if it holds MNIST,
            else scikit-learn's 1,797 digits of 8 x 8 pixels.
        download: let torchvision download MNIST if the folder lacks it; ignored if ``data`` is a file.

    Raises:
        ConfigError: the path holds no digits.
        ExDAError: a required package is missing.
    """
    if data is not None and not data.is_dir() and (data.exists() or not download):
        return _from_npz(data)
    folder = data or DEFAULT_FOLDER
    if data is not None or download or (folder / "MNIST" / "raw").is_dir():
        return _from_torchvision(folder, download)
    return _from_sklearn()


def _from_npz(path: Path) -> Digits:
    if is_nonregular_file(path):
        raise ConfigError(f"{path}: cannot be read as digits: it is no regular file")
    try:
        with np.load(path, allow_pickle=False) as held:
            images = held["images"]
    # RuntimeError: encrypted, or a compression that Python does not know.
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ConfigError(
            f"{path}: cannot be read as digits ({error}); expected an .npz with 'images', (n, H, W), or a folder with "
            f"torchvision's MNIST"
        ) from None
    return _digits(images, path.name)


def _from_torchvision(folder: Path, download: bool) -> Digits:
    datasets = require_extra("torchvision.datasets", "torchvision")
    try:
        images = datasets.MNIST(str(folder), train=True, download=download).data
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{folder}: no MNIST of torchvision there ({error}); --download fetches it") from None
    return _digits(images.numpy(), "MNIST of torchvision, training part")


def _from_sklearn() -> Digits:
    held = require_extra("sklearn.datasets", "diagnose").load_digits()
    # scikit-learn's digits have 17 grey levels, 0 to 16.
    return _digits(held.images.astype(np.float32) / 16, "8x8 digits of scikit-learn")


def _digits(images: Any, source: str) -> Digits:
    if images.ndim != 3 or not images.size or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise ConfigError(
            f"{source}: holds images of shape {images.shape}, {images.dtype}; expected (n, H, W), bytes or floats"
        )
    grey = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    if not (grey.min() >= 0 and grey.max() <= 1):
        raise ConfigError(f"{source}: holds values from {grey.min():g} to {grey.max():g}; expected 0 to 1, or bytes")
    digest = hashlib.sha256(np.ascontiguousarray(grey).tobytes()).hexdigest()
    return Digits(torch.from_numpy(grey).unsqueeze(1), source, digest)
