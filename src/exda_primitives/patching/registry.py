"""Registries of families and backbones: this library's, those of installed packages, and those registered by hand."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, Protocol, TypeVar

import torch

from ..errors import RegistrationError
from ..primitives import ExDAModule
from .adapter import Backbone, Family

ENTRY_POINT_GROUP = "exda_primitives.adapters"


class Named(Protocol):
    """Anything that can be registered: it has a name."""

    @property
    def name(self) -> str:
        """Unique among adapters of its kind."""


Adapter = TypeVar("Adapter", bound=Named)


class Registry(Generic[Adapter]):
    """Adapters of one kind.

    Args:
        same: whether two adapters of one name come from the same definition, which may have run twice.

    Attributes:
        known: name -> adapter, in order of registration.
        own: name -> this library's own adapter, even if another one has replaced it in ``known``.
    """

    def __init__(self, same: Callable[[Adapter, Adapter], bool]) -> None:
        self.known: dict[str, Adapter] = {}
        self.own: dict[str, Adapter] = {}
        self._same = same

    def add(self, adapter: Adapter, *, replace: bool = False) -> None:
        """Registers an adapter.

        Args:
            adapter: an adapter of this registry's kind.
            replace: replace another adapter of the same name.

        Raises:
            RegistrationError: without ``replace``, if another adapter has this name.
        """
        holder = self.known.get(adapter.name)
        if holder is not None and not replace and not self._same(holder, adapter):
            own = ", exda_primitives' own" if holder is self.own.get(adapter.name) else ""
            raise RegistrationError(
                f"register_adapter: the name {adapter.name!r} is taken by {holder!r}{own}; choose another for "
                f"{adapter!r}, or put it in that one's place with replace=True."
            )
        self.known[adapter.name] = adapter

    def add_own(self, *adapters: Adapter) -> None:
        """Registers adapters as this library's own."""
        for adapter in adapters:
            self.add(adapter)
            self.own[adapter.name] = adapter

    def forget(self, name: str) -> bool:
        """Removes the adapter of that name, or puts this library's own back; returns whether anything was removed."""
        if self.known.get(name) is self.own.get(name):
            return False
        if name in self.own:
            self.known[name] = self.own[name]
        else:
            del self.known[name]
        return True


def definition(made: Callable[..., object]) -> object:
    """Returns the module and qualified name of a class or function, or the object itself if it has none."""
    name = getattr(made, "__qualname__", None)
    return made if name is None else (made.__module__, name)


FAMILIES: Registry[Family] = Registry(lambda a, b: definition(type(a)) == definition(type(b)))
BACKBONES: Registry[Backbone] = Registry(lambda a, b: a == b)

_loaded = False
_this_thread = threading.local()


def register(adapter: Family | Backbone, *, replace: bool = False) -> None:
    """Makes an attention family or a backbone known to ``plan`` and ``patch``.

    Raises:
        RegistrationError: see ``exda_primitives.register_adapter``.
    """
    # Ours first: if this adapter took one of our names before ours are loaded, loading them would fail ever after.
    load_adapters()
    if isinstance(adapter, Family):
        _check_family(adapter)
        FAMILIES.add(adapter, replace=replace)
    else:
        BACKBONES.add(adapter, replace=replace)


def register_own(adapter: Family | Backbone) -> None:
    """Registers a family or a backbone of this library; called while its adapters are being loaded."""
    if isinstance(adapter, Family):
        FAMILIES.add_own(adapter)
    else:
        BACKBONES.add_own(adapter)


def known_families() -> dict[str, Family]:
    """Returns every family by name, in order of registration."""
    load_adapters()
    return FAMILIES.known


def known_backbones() -> dict[str, Backbone]:
    """Returns every backbone by name, in order of registration."""
    load_adapters()
    return BACKBONES.known


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
    # ``to_map`` has to undo ``make_inputs``: tried on a map of distinct numbers, not square.
    size = 16, 24
    x = torch.arange(8 * 16 * 24.0).view(1, 8, *size)
    if not torch.equal(family.to_map(family.make_inputs([x] * family.inputs)[family.source], size), x):
        raise RegistrationError(
            f"register_adapter: {kind}.to_map(x, (H, W)) does not give back what its make_inputs(maps) made x of; "
            f"write it, so that what looks at maps (B, C, H, W) finds the channels."
        )


def load_adapters() -> None:
    """Loads this library's adapters and then those of installed packages, once.

    Does nothing in a thread that is already loading them.
    """
    global _loaded  # noqa: PLW0603
    if _loaded or _loads_here():
        return
    with _loading():
        # By name, so that this package has no import of the adapters: they import it.
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
    # Set last: another thread that asks meanwhile waits in the imports until they are done.
    _loaded = True


@contextmanager
def _loading() -> Iterator[None]:
    """Marks this thread as loading: the adapters call ``register``, which must not start to load them again."""
    outer, _this_thread.loads = _loads_here(), True
    try:
        yield
    finally:
        _this_thread.loads = outer


def _loads_here() -> bool:
    return getattr(_this_thread, "loads", False)
