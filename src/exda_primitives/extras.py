"""Optional packages (pip extras), imported only where they are needed."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from .errors import ExDAError


def require_extra(module: str, extra: str) -> Any:
    """Imports and returns a module of an optional package.

    Args:
        module: the module to import.
        extra: the extra that installs it, or the package's own name if no extra does.

    Raises:
        ExDAError: if it cannot be imported; the message holds the line that installs it.
    """
    try:
        return import_module(module)
    # pyvips raises OSError if it is installed but libvips is not.
    except (ImportError, OSError) as error:
        raise ExDAError(f"{module} cannot be imported ({error}); run: {install_line(extra)}") from error


def install_line(extra: str) -> str:
    """Returns the command that installs an extra's packages.

    It names the packages themselves: ``exda_primitives`` is on no package index, so that its extras cannot be installed
    by its name from there.
    """
    try:
        known = requires("exda_primitives") or []
    except PackageNotFoundError:
        return f'pip install "exda_primitives[{extra}]"'
    pairs = [requirement.replace("'", '"').partition(";") for requirement in known]
    packages = [name.strip() for name, _, marker in pairs if f'extra == "{extra}"' in marker]
    return " ".join(["pip install", *(f'"{package}"' for package in packages or [extra])])
