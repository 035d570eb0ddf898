"""Registers and unregisters adapters of all kinds: families, backbones and architectures."""

from __future__ import annotations

from .errors import RegistrationError, some_of
from .models.architecture import Architecture
from .models.registry import ARCHITECTURES
from .patching.adapter import Backbone, Family
from .patching.registry import BACKBONES, FAMILIES, load_adapters, register

_REGISTRIES = (FAMILIES, BACKBONES, ARCHITECTURES)


def register_adapter(adapter: Family | Backbone | Architecture, *, replace: bool = False) -> None:
    """Makes an attention family or a backbone known to ``plan`` and ``patch``, or an architecture to ``models``.

    A package can register its adapters without a call by the user: it names a module that calls this function in the
    entry-point group ``exda_primitives.adapters``.

    Args:
        adapter: an instance of a ``Family`` subclass, a ``Backbone`` or an ``Architecture``.
        replace: replace the adapter that has the same name, even one of this library's own. Not needed to register the
            same adapter again: an equal one, or one whose definition has the same name in the same module, as when a
            notebook cell runs twice.

    Raises:
        RegistrationError: for anything else and, without ``replace``, for a name that another adapter has.
    """
    if isinstance(adapter, Architecture):
        load_adapters()
        ARCHITECTURES.add(adapter, replace=replace)
    elif isinstance(adapter, Family | Backbone):
        register(adapter, replace=replace)
    else:
        raise RegistrationError(
            f"register_adapter: expected an instance of Family, a Backbone or an Architecture, got {adapter!r}"
            + ("; register an instance, not the class." if isinstance(adapter, type) else ".")
        )


def unregister_adapter(name: str) -> None:
    """Removes the adapters of this name, of all three kinds; an adapter of this library that was replaced comes back.

    Patched models stay as they are.

    Args:
        name: the adapter's ``name``.

    Raises:
        RegistrationError: if no adapter has this name, or only one of this library's own.
    """
    load_adapters()
    forgotten = [registry.forget(name) for registry in _REGISTRIES]
    if any(forgotten):
        return
    if any(name in registry.own for registry in _REGISTRIES):
        raise RegistrationError(f"unregister_adapter: {name!r} is exda_primitives' own and cannot be removed.")
    others = {each for registry in _REGISTRIES for each in registry.known.keys() - registry.own.keys()}
    raise RegistrationError(
        f"unregister_adapter: there is no adapter {name!r}; registered besides exda_primitives' own are "
        f"{some_of(sorted(others)) or 'none'}."
    )
