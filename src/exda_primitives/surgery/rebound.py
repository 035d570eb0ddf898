"""What users and libraries set on a module, such as a wrapped forward, bound to another module in its place."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

from torch import nn

from .references import modules_in


def rebound(held: Any, module: nn.Module, other: nn.Module) -> Any:
    """Returns what a module holds, with the module replaced by another.

    It looks into bound methods and partials, which is how libraries (accelerate for one) wrap a forward.

    Args:
        held: an attribute of ``module``.
        module: the module that is replaced.
        other: the module in its place. It takes its own method for each method that ``module``'s class defines.

    Returns:
        What ``other`` holds instead; ``held`` itself if it does not refer to ``module``, or refers to it where it
        cannot be exchanged: in the variables that a function closes over, or as a method that ``other`` lacks.
    """
    if held is module:
        return other
    if isinstance(held, MethodType):
        return _rebound_method(held, module, other)
    if isinstance(held, partial):
        return _rebound_partial(held, module, other)
    return held


def _rebound_method(held: MethodType, module: nn.Module, other: nn.Module) -> Any:
    if held.__self__ is not module:
        return held
    function = held.__func__
    name = getattr(function, "__name__", "")
    if any(vars(each).get(name) is function for each in type(module).__mro__):
        return getattr(other, name, held)
    return held if _refers(function, module) else MethodType(function, other)


def _rebound_partial(held: partial[Any], module: nn.Module, other: nn.Module) -> Any:
    if not isinstance(held.func, MethodType) and _refers(held.func, module):
        return held
    function, *arguments = (rebound(each, module, other) for each in (held.func, *held.args))
    keywords = {name: rebound(each, module, other) for name, each in held.keywords.items()}
    before, after = (held.func, *held.args, *held.keywords.values()), (function, *arguments, *keywords.values())
    if all(each is new for each, new in zip(before, after, strict=True)):
        return held
    made = partial(function, *arguments, **keywords)
    vars(made).update({name: rebound(each, module, other) for name, each in vars(held).items()})
    return made


def _refers(function: Any, module: nn.Module) -> bool:
    """Whether a function closes over a module, or over something that refers to it."""
    return any(each is module for each in modules_in(function))
