"""Copies of modules to experiment on, separated from the user's model, its hooks, its device and its random numbers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .replacement import HOOK_NAMES
from .wrappers import is_compiled

Modules = TypeVar("Modules", bound=tuple[nn.Module, ...])
Module = TypeVar("Module", bound=nn.Module)


def detached(modules: Modules, dtype: torch.dtype) -> Modules:
    """Returns deep copies on the CPU in ``dtype``, in eval mode and without hooks; what originals share, copies share.

    The copies are called ``without_global_hooks``; their parametrised tensors stay out of ``parametrize.cached()``.
    """
    hooks = [
        vars(part)[name]
        for module in modules
        for part in module.modules()
        for name in HOOK_NAMES & vars(part).keys()
        if isinstance(vars(part)[name], dict)
    ]
    # Tensors that hooks left as plain attributes (weight norm, pruning): ``module.to`` does not convert these.
    computed = [
        held
        for module in modules
        for part in module.modules()
        for held in (vars(part).values() if part._forward_pre_hooks else ())
        if isinstance(held, Tensor) and held.is_floating_point()
    ]
    # Pre-seeds deepcopy's memo, so that hooks are not copied: one may hold a trainer, or the whole model.
    known: dict[int, Any] = {id(each): OrderedDict() for each in hooks}
    known |= {id(each): each.detach().clone().to("cpu", dtype) for each in computed}
    copies = copy.deepcopy(modules, known)
    for module in copies:
        if not has_weights(module):
            # Meta tensors hold nothing that could be moved: the copy gets memory, not yet filled.
            module.to_empty(device="cpu")
        module.to(device="cpu", dtype=dtype).eval()
        without_global_hooks(module)
    return copies


def without_global_hooks(module: Module) -> Module:
    """Makes calls of a module and its parts bypass global module hooks and torch.compile, and returns the module.

    For copies without hooks of their own. Global hooks belong to the process and cannot be removed for a while: modules
    of other threads run at the same time. Compiling a copy would count towards the recompile limit of the function that
    the user compiled.
    """
    for part in module.modules():
        if not isinstance(part, torch.jit.ScriptModule):
            _uncompile_methods(part)
            # ``Module.__call__`` calls this attribute, if it is set, in place of ``_call_impl``, which runs the hooks.
            # Through ``vars``: ``__setattr__`` would register a module as a child.
            vars(part)["_compiled_call_impl"] = (
                part.get_submodule("_orig_mod") if is_compiled(part) else _uncompiled_forward(part)
            )
        if parametrize.is_parametrized(part):
            _read_uncached(part)
    return module


def _uncompile_methods(part: nn.Module) -> None:
    """Puts onto the instance an uncompiled form of each method that is, or calls, a compiled function."""
    for kind in type(part).__mro__:
        for name, method in vars(kind).items() if not kind.__module__.startswith("torch.") else ():
            function = _uncompiled(method)
            if function is not method and name != "forward":
                vars(part).setdefault(name, function.__get__(part))


def _uncompiled_forward(part: nn.Module) -> Callable[..., Any]:
    # A forward that was replaced on the instance stays as it is.
    forward = type(part).forward
    function = forward if "forward" in vars(part) else _uncompiled(forward)
    return part.forward if function is forward else function.__get__(part)


def _uncompiled(function: Any) -> Any:
    """Returns a function without torch.compile's wrapper, and without those of the global functions that it calls."""
    function = _given_to_compile(function)
    if not isinstance(function, FunctionType):
        return function
    held = function.__globals__
    given = {name: _given_to_compile(held[name]) for name in function.__code__.co_names if name in held}
    if all(given[name] is held[name] for name in given):
        return function
    # The same code with globals of its own, in which the compiled functions are replaced; the module's stay.
    return FunctionType(
        function.__code__, {**held, **given}, function.__name__, function.__defaults__, function.__closure__
    )


def _given_to_compile(function: Any) -> Any:
    return (
        vars(function).get("_torchdynamo_orig_callable", function) if isinstance(function, FunctionType) else function
    )


def _read_uncached(part: nn.Module) -> None:
    """Makes a copy compute its parametrised tensors at each access, bypassing the cache of ``parametrize.cached()``.

    In that cache, which the process shares, a copy's tensor could be taken for the original's.
    """
    names = [name for name, _ in part.get_submodule("parametrizations").named_children()]
    # Properties live in the class: a subclass for this instance alone.
    part.__class__ = type(
        type(part).__name__, (type(part),), {name: property(partial(_computed, name)) for name in names}
    )


def _computed(name: str, part: nn.Module) -> Any:
    return part.get_submodule(f"parametrizations.{name}")()


def has_weights(module: nn.Module) -> bool:
    """Whether no parameter is on the meta device."""
    return not any(parameter.is_meta for parameter in module.parameters())


def random_maps(
    count: int, shape: tuple[int, int, int, int], dtype: torch.dtype, generator: torch.Generator
) -> list[Tensor]:
    """Returns ``count`` maps (B, C, H, W) of standard normal numbers."""
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


@contextmanager
def isolated_global_state() -> Iterator[None]:
    """Within the block, computes on the CPU, without gradients, autocast or inference mode.

    Only this thread is affected. The random generator is not isolated: call what may draw random numbers within
    ``OwnRandomNumbers``.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        # The user's default device may be another one. A tensor tells it in every version of PyTorch: 2.6's
        # ``torch.get_default_device`` does not see ``with torch.device(...)``, and fails once a default was reset.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
