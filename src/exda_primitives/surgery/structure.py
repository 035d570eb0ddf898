"""Walks over the modules of a model, and what tells one module from another."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from torch import nn
from torch.nn.parameter import is_lazy

from .replacement import ReplacementModule


def modules_with_names(model: nn.Module, leaves: type[nn.Module]) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Every module once, with all the names that it has in the model; of ``leaves`` not what they hold."""
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
    """Equal for modules that one probe can speak for: class, settings, and shapes of all parts.

    Args:
        module: one of a model.
        known: what is known of the model's modules by their ids: empty for the first one, filled by each call.
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
    return tuple((key, _plain(held)) for key, held in vars(part).items() if key not in _NOT_SETTINGS)


def _shape(parameter: nn.Parameter) -> tuple[int, ...] | None:
    return None if is_lazy(parameter) else tuple(parameter.shape)


_NOT_SETTINGS = vars(nn.Module()).keys()


def _plain(held: object) -> Hashable:
    if held is None or isinstance(held, bool | int | float | str):
        return held
    if isinstance(held, tuple):
        return tuple(map(_plain, held))
    return id(held)
