"""The families and backbones that are known: ours, those of installed packages, and those registered by hand."""

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
    """What can be registered."""

    @property
    def name(self) -> str:
        """Unique among those of its kind."""


Adapter = TypeVar("Adapter", bound=Named)


class Registry(Generic[Adapter]):
    """Adapters of one kind.

    Args:
        same: whether two adapters of one name are of one definition, which may have been run twice.

    Attributes:
        known: by name, in order of registration.
        own: those of them that are this library's, whatever replaced them since.
    """

    def __init__(self, same: Callable[[Adapter, Adapter], bool]) -> None:
        self.known: dict[str, Adapter] = {}
        self.own: dict[str, Adapter] = {}
        self._same = same

    def add(self, adapter: Adapter, *, replace: bool = False) -> None:
        """Makes an adapter known.

        Args:
            adapter: of this registry's kind.
            replace: put it in the place of another one that has its name.

        Raises:
            RegistrationError: without ``replace``, for a name that another adapter has.
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
        """Makes adapters known as this library's own."""
        for adapter in adapters:
            self.add(adapter)
            self.own[adapter.name] = adapter

    def forget(self, name: str) -> bool:
        """Forgets the adapter of that name, or puts the own one back; whether there was one to forget."""
        if self.known.get(name) is self.own.get(name):
            return False
        if name in self.own:
            self.known[name] = self.own[name]
        else:
            del self.known[name]
        return True


def definition(made: Callable[..., object]) -> object:
    """Where it was written, or itself where that is not known."""
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
    # First: a name of ours that is taken before we were asked for it would make every later look-up fail.
    load_adapters()
    if isinstance(adapter, Family):
        _check_family(adapter)
        FAMILIES.add(adapter, replace=replace)
    else:
        BACKBONES.add(adapter, replace=replace)


def register_own(adapter: Family | Backbone) -> None:
    """The same for this library's own, while they are loaded."""
    if isinstance(adapter, Family):
        FAMILIES.add_own(adapter)
    else:
        BACKBONES.add_own(adapter)


def known_families() -> dict[str, Family]:
    """Every family by name, in order of registration."""
    load_adapters()
    return FAMILIES.known


def known_backbones() -> dict[str, Backbone]:
    """Every backbone by name, in order of registration."""
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
    size = 16, 24
    x = torch.arange(8 * 16 * 24.0).view(1, 8, *size)
    if not torch.equal(family.to_map(family.arguments([x] * family.inputs)[family.source], size), x):
        raise RegistrationError(
            f"register_adapter: {kind}.to_map(x, (H, W)) does not give back what its arguments(maps) made x of; "
            f"write it, so that what looks at maps (B, C, H, W) finds the channels."
        )


def load_adapters() -> None:
    """Registers ours, then those of installed packages; of a thread that is doing so already it asks nothing."""
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


@contextmanager
def _loading() -> Iterator[None]:
    """What is loaded in here calls register, which would load it again."""
    outer, _this_thread.loads = _loads_here(), True
    try:
        yield
    finally:
        _this_thread.loads = outer


def _loads_here() -> bool:
    return getattr(_this_thread, "loads", False)
