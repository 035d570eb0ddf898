"""The adapters that are known: ours, those of installed packages, and those registered by hand."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

from ..errors import RegistrationError
from ..primitives import ExDAModule
from .adapter import Backbone, Family
from .architecture import Architecture

ENTRY_POINT_GROUP = "exda_primitives.adapters"

Adapter = TypeVar("Adapter", Family, Backbone, Architecture)

_families: dict[str, Family] = {}
_backbones: dict[str, Backbone] = {}
_architectures: dict[str, Architecture] = {}
_loaded = False


def register_adapter(adapter: Family | Backbone | Architecture) -> None:
    """Makes an attention family or a backbone known to ``plan`` and ``patch``, or an architecture to ``models``.

    A package registers its own without a call by the user: it names a module that calls this function in the
    entry-point group ``exda_primitives.adapters``.

    Args:
        adapter: an instance of a :class:`Family` subclass, a :class:`Backbone` or an :class:`Architecture`.

    Raises:
        RegistrationError: for anything else, and for a name that another adapter has.
    """
    # First: a name of ours that is taken before we were asked for it would make every later look-up fail.
    _load()
    if isinstance(adapter, Family):
        _check_family(adapter)
        _add(_families, adapter)
    elif isinstance(adapter, Backbone):
        _add(_backbones, adapter)
    elif isinstance(adapter, Architecture):
        _add(_architectures, adapter)
    else:
        raise RegistrationError(
            f"register_adapter: expected an instance of Family, a Backbone or an Architecture, got {adapter!r}"
            + ("; register an instance, not the class." if isinstance(adapter, type) else ".")
        )


def known_families() -> dict[str, Family]:
    """Every family by name, in order of registration."""
    _load()
    return _families


def known_backbones() -> dict[str, Backbone]:
    """Every backbone by name, in order of registration."""
    _load()
    return _backbones


def known_architectures() -> dict[str, Architecture]:
    """Every architecture by name, in order of registration."""
    _load()
    return _architectures


def _add(known: dict[str, Adapter], adapter: Adapter) -> None:
    holder = known.setdefault(adapter.name, adapter)
    if holder is not adapter:
        raise RegistrationError(
            f"register_adapter: the name {adapter.name!r} is taken by {holder!r}; choose another for {adapter!r}."
        )


def _check_family(family: Family) -> None:
    kind = type(family).__name__
    if not isinstance(getattr(family, "name", None), str):
        raise RegistrationError(f"register_adapter: {kind} has no name; set the class attribute name = '...'.")
    replacement = getattr(family, "replacement", None)
    if not (isinstance(replacement, type) and issubclass(replacement, ExDAModule)):
        raise RegistrationError(
            f"register_adapter: {kind} has no replacement; set the class attribute to a subclass of ExDAModule, "
            f"not {replacement!r}."
        )


def _load() -> None:
    global _loaded  # noqa: PLW0603
    if _loaded:
        return
    # Before anything is loaded: what is loaded calls register_adapter, which calls this function.
    _loaded = True
    # By name: the adapters import this package, never the other way round.
    import_module("exda_primitives.adapters")
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry_point.load()
        except Exception as error:
            warnings.warn(
                f"exda_primitives: the adapter {entry_point.name!r} ({entry_point.value}) could not be loaded and is "
                f"ignored: {type(error).__name__}: {error}",
                stacklevel=2,
            )
