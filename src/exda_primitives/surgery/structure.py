"""Walks over the modules of a model, and keys that are equal for modules that compute the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from torch import nn
from torch.nn.parameter import is_lazy

from .references import OF_MODULES
from .replacement import ReplacementModule


def modules_with_names(model: nn.Module, leaves: type[nn.Module]) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Returns every module once, with all its names in the model; does not go into modules of the class ``leaves``."""
    names: dict[int, list[str]] = {}
    modules: dict[int, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules(remove_duplicate=False):
        if name.startswith(inside):
            continue
        if isinstance(module, leaves):
            inside = (*inside, f"{name}." if name else "")
        names.setdefault(id(module), []).append(name)
        modules[id(module)] = module
    return ((module, tuple(names[key])) for key, module in modules.items())


def structural_key(module: nn.Module, known: dict[int, Hashable]) -> Hashable:
    """Returns a key of class, settings and shapes of all parts; modules with equal keys can share one probe result.

    Args:
        module: a module of a model.
        known: cache, id of a part -> its own key; pass the same dictionary for all modules of one model, empty at
            first.
    """
    found = []
    for name, part in module.named_modules():
        if id(part) not in known:
            known[id(part)] = _of_part(part)
        found.append((name, known[id(part)]))
    return tuple(found)


def _of_part(part: nn.Module) -> Hashable:
    return (
        type(part),
        part.extra_repr(),
        tuple((key, _shape(p), p.dtype) for key, p in part.named_parameters(recurse=False)),
        tuple(key for key, _ in part.named_buffers(recurse=False)),
        _settings(part),
    )


def _settings(part: nn.Module) -> Hashable:
    if isinstance(part, ReplacementModule):
        return part.structural_settings()
    return tuple((key, _plain(held)) for key, held in vars(part).items() if key not in OF_MODULES)


def _shape(parameter: nn.Parameter) -> tuple[int, ...] | None:
    return None if is_lazy(parameter) else tuple(parameter.shape)


_PLAIN = (bool, int, float, str, type(None))


def _plain(held: object) -> Hashable:
    if isinstance(held, _PLAIN):
        return held
    if isinstance(held, tuple):
        return tuple(map(_plain, held))
    # Anything else counts as equal only to itself.
    return id(held)
