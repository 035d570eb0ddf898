"""Packages of the extras, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import ExDAError


def imported(module: str, extra: str) -> Any:
    """A module of a package that comes with an extra.

    Raises:
        ExDAError: where it cannot be imported, with the line that installs it.
    """
    try:
        return import_module(module)
    # pyvips raises OSError where it is installed but the library behind it is not.
    except (ImportError, OSError) as error:
        raise ExDAError(
            f'{module} cannot be imported ({error}); run: pip install "exda_primitives[{extra}]"'
        ) from error
