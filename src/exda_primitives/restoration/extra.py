"""The packages of the extra ``restore``, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import ExDAError


def pyvips() -> Any:
    """The module that reads and writes pictures."""
    return _imported("pyvips")


def psutil() -> Any:
    """The module that knows how much memory there is."""
    return _imported("psutil")


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    # pyvips raises OSError where it is installed but the library behind it is not.
    except (ImportError, OSError) as error:
        raise ExDAError(f'{name} cannot be imported ({error}); run: pip install "exda_primitives[restore]"') from error
