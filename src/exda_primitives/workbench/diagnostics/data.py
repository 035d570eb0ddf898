"""Where the digits come from."""

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
from ..shared.files import is_something_else

DEFAULT_FOLDER = Path("data")
"""Where torchvision's MNIST is looked for when no place is given: the folder of torchvision's own examples."""


@dataclass(frozen=True)
class Digits:
    """Grey images.

    Attributes:
        images: (n, 1, H, W) float32 in [0, 1].
        source: where they come from, for the result.
        sha256: of their bytes.
    """

    images: Tensor
    source: str
    sha256: str


def load_digits(data: Path | None = None, *, download: bool = False) -> Digits:
    """Digits from a file, from torchvision's MNIST, or the small ones that scikit-learn carries.

    Args:
        data: an .npz with ``images``, (n, H, W), bytes or floats in [0, 1]; or a folder with torchvision's MNIST (its
            argument ``root``). By default ``data`` in the working directory if it holds MNIST, else the 1,797 digits
            of 8x8 pixels of scikit-learn.
        download: let torchvision fetch MNIST where the folder does not hold it; with a file, nothing is fetched.

    Raises:
        ConfigError: for a path that holds no digits.
        ExDAError: where the package that is needed is missing.
    """
    if data is not None and not data.is_dir() and (data.exists() or not download):
        return _from_npz(data)
    folder = data or DEFAULT_FOLDER
    if data is not None or download or (folder / "MNIST" / "raw").is_dir():
        return _from_torchvision(folder, download)
    return _from_sklearn()


def _from_npz(path: Path) -> Digits:
    if is_something_else(path):
        raise ConfigError(f"{path}: cannot be read as digits: it is no regular file")
    try:
        with np.load(path, allow_pickle=False) as held:
            images = held["images"]
    # RuntimeError: encrypted, or packed in a way that Python does not know.
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
    # 17 grey levels.
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
