"""The library's Triton kernels: all or only the tuned ones, and the bytes that a launch reads and writes."""

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
"""The class that ``triton.jit`` returns: ``JITFunction``, or another one under Triton's interpreter."""


def modules() -> list[ModuleType]:
    """Imports and returns all modules of ``exda_primitives.ops.triton``."""
    return [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]


def all_of_them() -> Iterator[Kernel]:
    """Yields all kernels, each once."""
    # By id, since a module may import another one's kernels.
    found = {id(value): value for module in modules() for value in vars(module).values() if isinstance(value, Kernel)}
    yield from found.values()


def tuned() -> Iterator[Kernel]:
    """Yields the kernels that are tuned over several configurations; none under the interpreter."""
    return (kernel for kernel in all_of_them() if kernel.tunes)


def tensors(arguments: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the tensors among a launch's arguments."""
    return {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}


def moved_bytes(arguments: Mapping[str, Any]) -> int:
    """Returns the bytes that a launch reads and writes at least: those of all its tensors, each once."""
    return bytes_of(tensors(arguments).values())


def bytes_of(given: Iterable[torch.Tensor]) -> int:
    """Returns the bytes of tensors, each counted once."""
    # An unused pointer argument is given another argument's tensor, which must not count twice.
    found = {(each.data_ptr(), each.shape): each for each in given}
    return sum(each.numel() * each.element_size() for each in found.values())
