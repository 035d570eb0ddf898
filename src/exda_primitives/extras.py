"""Packages of the extras, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from .errors import ExDAError


def require_extra(module: str, extra: str) -> Any:
    """Imports a module of a package that an extra brings, or of one that no extra brings and is named itself.

    Raises:
        ExDAError: where it cannot be imported, with the line that installs it.
    """
    try:
        return import_module(module)
    # pyvips raises OSError where it is installed but the library behind it is not.
    except (ImportError, OSError) as error:
        raise ExDAError(f"{module} cannot be imported ({error}); run: {install_line(extra)}") from error


def install_line(extra: str) -> str:
    """What to type to get the packages of an extra, wherever this one came from: its own name is on no index."""
    try:
        known = requires("exda_primitives") or []
    except PackageNotFoundError:
        return f'pip install "exda_primitives[{extra}]"'
    pairs = [requirement.replace("'", '"').partition(";") for requirement in known]
    packages = [name.strip() for name, _, marker in pairs if f'extra == "{extra}"' in marker]
    return " ".join(["pip install", *(f'"{package}"' for package in packages or [extra])])
