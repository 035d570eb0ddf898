"""The library's Triton kernels: all of them, those that are tuned, and what a launch reads and writes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
import triton

from exda_primitives.ops import triton as package
from exda_primitives.ops.triton.kernel import Kernel


def _nothing() -> None:
    pass


JITTED: type[Any] = type(triton.jit(_nothing))
"""What ``triton.jit`` makes of a function: compiled, or under Triton's interpreter another one."""


def modules() -> list[ModuleType]:
    """All modules of the package, imported."""
    return [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]


def all_of_them() -> Iterator[Kernel]:
    """The kernels."""
    # Imported elsewhere as well.
    found = {id(value): value for module in modules() for value in vars(module).values() if isinstance(value, Kernel)}
    yield from found.values()


def tuned() -> Iterator[Kernel]:
    """Those of which several configurations are timed; under the interpreter none."""
    return (kernel for kernel in all_of_them() if kernel.tunes)


def tensors(arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Those of a launch's arguments."""
    return {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}


def moved_bytes(arguments: Mapping[str, Any]) -> int:
    """Of all tensors of a launch, each once: what it reads and writes at least."""
    return bytes_of(tensors(arguments).values())


def bytes_of(given: Iterable[torch.Tensor]) -> int:
    """Of tensors, each once."""
    # Where nothing is needed a pointer to something else is handed over.
    found = {(each.data_ptr(), each.shape): each for each in given}
    return sum(each.numel() * each.element_size() for each in found.values())
