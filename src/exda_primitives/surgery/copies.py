"""Copies to experiment on: detached from the user's model, its hooks, its device and its random numbers."""

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
    """Deep copies on the CPU in ``dtype``, eval mode, without hooks; what the originals share, the copies share.

    They are called as ``unheard`` modules, and nothing of theirs is kept in ``parametrize.cached()``.
    """
    hooks = [
        vars(part)[name]
        for module in modules
        for part in module.modules()
        for name in HOOK_NAMES & vars(part).keys()
        if isinstance(vars(part)[name], dict)
    ]
    # Left by such hooks as normalise or prune a weight: no parameters, so that they follow neither dtype nor device.
    computed = [
        held
        for module in modules
        for part in module.modules()
        for held in (vars(part).values() if part._forward_pre_hooks else ())
        if isinstance(held, Tensor) and held.is_floating_point()
    ]
    # Given to deepcopy as copied already: what a hook belongs to, a trainer or the whole model, stays out of this.
    known: dict[int, Any] = {id(each): OrderedDict() for each in hooks}
    known |= {id(each): each.detach().clone().to("cpu", dtype) for each in computed}
    copies = copy.deepcopy(modules, known)
    for module in copies:
        if not has_weights(module):
            module.to_empty(device="cpu")
        module.to(device="cpu", dtype=dtype).eval()
        unheard(module)
    return copies


def unheard(module: Module) -> Module:
    """The module, its parts called past hooks on all modules and past torch.compile; for copies without hooks.

    Such hooks are the process's, and other threads' modules run meanwhile; what is compiled for a copy would count
    towards the limit of the function that the user compiled.
    """
    for part in module.modules():
        if not isinstance(part, torch.jit.ScriptModule):
            _uncompile_methods(part)
            # Past __setattr__, which would register a module.
            vars(part)["_compiled_call_impl"] = (
                part.get_submodule("_orig_mod") if is_compiled(part) else _uncompiled_forward(part)
            )
        if parametrize.is_parametrized(part):
            _read_uncached(part)
    return module


def _uncompile_methods(part: nn.Module) -> None:
    for kind in type(part).__mro__:
        for name, method in vars(kind).items() if not kind.__module__.startswith("torch.") else ():
            function = _uncompiled(method)
            if function is not method and name != "forward":
                vars(part).setdefault(name, function.__get__(part))


def _uncompiled_forward(part: nn.Module) -> Callable[..., Any]:
    forward = type(part).forward
    function = forward if "forward" in vars(part) else _uncompiled(forward)
    return part.forward if function is forward else function.__get__(part)


def _uncompiled(function: Any) -> Any:
    """A function as torch.compile was given it, and the global functions that it calls likewise; or as it is."""
    function = _given_to_compile(function)
    if not isinstance(function, FunctionType):
        return function
    held = function.__globals__
    given = {name: _given_to_compile(held[name]) for name in function.__code__.co_names if name in held}
    if all(given[name] is held[name] for name in given):
        return function
    return FunctionType(
        function.__code__, {**held, **given}, function.__name__, function.__defaults__, function.__closure__
    )


def _given_to_compile(function: Any) -> Any:
    return (
        vars(function).get("_torchdynamo_orig_callable", function) if isinstance(function, FunctionType) else function
    )


def _read_uncached(part: nn.Module) -> None:
    """Computes parametrised tensors anew at each access: cached, a copy's would be taken for the original's."""
    names = [name for name, _ in part.get_submodule("parametrizations").named_children()]
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
    """Normal maps of (B, C, H, W)."""
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


@contextmanager
def isolated_global_state() -> Iterator[None]:
    """Computes on the CPU without gradients, autocast and inference mode.

    In this thread alone: nothing is set that another one sees. What may draw random numbers is called within
    ``OwnRandomNumbers``.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
