"""Reads arrays and tensors written by ``pickle.dump``, without running code."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ....errors import ImageError


def _storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


# All that a pickled array or tensor needs. NumPy 1 calls the package numpy.core, NumPy 2 numpy._core.
_RECONSTRUCT: Any = np.empty(1).__reduce__()[0]
_FROM_BUFFER: Any = np.empty(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code") from None


def read_array(path: Path) -> NDArray[Any]:
    """Reads the only array or tensor in a file.

    Raises:
        ImageError: the file is missing, damaged, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            value = _Unpickler(file).load()
    # Unpickling damaged data can raise any exception.
    except Exception as error:
        raise ImageError(f"{path} is no pickled array that can be read ({type(error).__name__}: {error})") from error
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        raise ImageError(f"{path} holds {type(value).__name__}, not an array of numbers")
    return value
