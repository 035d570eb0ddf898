"""The adapters that are known: ours, those of installed packages, and those registered by hand."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

from ..errors import RegistrationError, some_of
from ..primitives import ExDAModule
from .adapter import Backbone, Family
from .architecture import Architecture

ENTRY_POINT_GROUP = "exda_primitives.adapters"

Adapter = TypeVar("Adapter", Family, Backbone, Architecture)

_families: dict[str, Family] = {}
_backbones: dict[str, Backbone] = {}
_architectures: dict[str, Architecture] = {}
_own: tuple[dict[str, Family], dict[str, Backbone], dict[str, Architecture]] = ({}, {}, {})
_loaded = False
_this_thread = threading.local()


def register_adapter(adapter: Family | Backbone | Architecture, *, replace: bool = False) -> None:
    """Makes an attention family or a backbone known to ``plan`` and ``patch``, or an architecture to ``models``.

    A package registers its own without a call by the user: it names a module that calls this function in the
    entry-point group ``exda_primitives.adapters``.

    Args:
        adapter: an instance of a :class:`Family` subclass, a :class:`Backbone` or an :class:`Architecture`.
        replace: put it in the place of the adapter that has its name, one of this library's own included. Not needed
            where that is the same one: equal, or made from what has the same name in the same module, as when the cell
            of a notebook runs again.

    Raises:
        RegistrationError: for anything else, and, without ``replace``, for a name that another adapter has.
    """
    # First: a name of ours that is taken before we were asked for it would make every later look-up fail.
    _load()
    if isinstance(adapter, Family):
        _check_family(adapter)
        _add(_families, adapter, replace)
    elif isinstance(adapter, Backbone):
        _add(_backbones, adapter, replace)
    elif isinstance(adapter, Architecture):
        _add(_architectures, adapter, replace)
    else:
        raise RegistrationError(
            f"register_adapter: expected an instance of Family, a Backbone or an Architecture, got {adapter!r}"
            + ("; register an instance, not the class." if isinstance(adapter, type) else ".")
        )


def unregister_adapter(name: str) -> None:
    """Forgets the adapters of this name, of all three kinds; one of this library's own that it replaced is back.

    Models that are patched stay as they are.

    Args:
        name: the adapter's ``name``.

    Raises:
        RegistrationError: for a name that none has, or only one of this library's own.
    """
    _load()
    families, backbones, architectures = _own
    forgotten = (
        _forget(_families, families, name),
        _forget(_backbones, backbones, name),
        _forget(_architectures, architectures, name),
    )
    if any(forgotten):
        return
    if name in {*families, *backbones, *architectures}:
        raise RegistrationError(f"unregister_adapter: {name!r} is exda_primitives' own, which stays.")
    others = {*_families, *_backbones, *_architectures} - {*families, *backbones, *architectures}
    raise RegistrationError(
        f"unregister_adapter: there is no adapter {name!r}; registered beside exda_primitives' own are "
        f"{some_of(sorted(others)) or 'none'}."
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


@contextmanager
def own() -> Iterator[None]:
    """What is registered in here is this library's own."""
    global _own  # noqa: PLW0603
    with _loading():
        yield
    _own = (dict(_families), dict(_backbones), dict(_architectures))


@contextmanager
def _loading() -> Iterator[None]:
    """What is loaded in here calls register_adapter, which would load it again."""
    outer, _this_thread.loads = _loads_here(), True
    try:
        yield
    finally:
        _this_thread.loads = outer


def _loads_here() -> bool:
    return getattr(_this_thread, "loads", False)


def _forget(known: dict[str, Adapter], own: dict[str, Adapter], name: str) -> bool:
    """Whether there was one to forget."""
    if known.get(name) is own.get(name):
        return False
    if name in own:
        known[name] = own[name]
    else:
        del known[name]
    return True


def _add(known: dict[str, Adapter], adapter: Adapter, replace: bool) -> None:
    holder = known.get(adapter.name)
    if holder is not None and not replace and not _same(holder, adapter):
        own = ", exda_primitives' own" if any(holder is own.get(adapter.name) for own in _own) else ""
        raise RegistrationError(
            f"register_adapter: the name {adapter.name!r} is taken by {holder!r}{own}; choose another for {adapter!r}, "
            f"or put it in that one's place with replace=True."
        )
    known[adapter.name] = adapter


def _same(holder: Family | Backbone | Architecture, adapter: Family | Backbone | Architecture) -> bool:
    """Whether both are of one definition, which may have been run twice."""
    if isinstance(holder, Family) and isinstance(adapter, Family):
        return _definition(type(holder)) == _definition(type(adapter))
    if isinstance(holder, Architecture) and isinstance(adapter, Architecture):
        made = (holder.build, adapter.build), (holder.infer, adapter.infer)
        return holder.published == adapter.published and all(_definition(a) == _definition(b) for a, b in made)
    return holder == adapter


def _definition(made: Callable[..., object]) -> object:
    """Where it was written, or itself where that is not known."""
    name = getattr(made, "__qualname__", None)
    return made if name is None else (made.__module__, name)


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
    if _loaded or _loads_here():
        return
    with _loading():
        # By name: the adapters import this package, never the other way round.
        import_module("exda_primitives.adapters")
        for entry_point in entry_points(group=ENTRY_POINT_GROUP):
            try:
                entry_point.load()
            except Exception as error:
                warnings.warn(
                    f"exda_primitives: the adapter {entry_point.name!r} ({entry_point.value}) could not be loaded and "
                    f"is ignored: {type(error).__name__}: {error}",
                    stacklevel=2,
                )
    # Last: another thread that asks meanwhile waits for the imports.
    _loaded = True
