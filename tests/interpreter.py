"""Makes Triton's interpreter compute as a GPU does where it does not by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


@contextmanager
def rounding_as_on_a_gpu() -> Iterator[None]:
    """Makes the interpreter round float32 to the nearest bfloat16, ties to even; by itself it truncates."""
    convert: Callable[..., Any] = interpreter._convert_float

    def rounded(numbers: Any, given: Any, wanted: Any, mode: Any) -> Any:
        if given != tl.float32 or wanted != tl.bfloat16:
            return convert(numbers, given, wanted, mode)
        # The upper 16 bits, after adding just under half of the lowest of them, or exactly half if that bit is odd.
        bits = np.ascontiguousarray(numbers).view(np.uint32).astype(np.uint64)
        nearest = bits + 0x7FFF + (bits >> 16 & 1)
        # The addition could carry a NaN into another bit pattern: NaNs are made quiet instead.
        return (np.where(np.isnan(numbers), bits | 0x400000, nearest) >> 16).astype(np.uint16).reshape(numbers.shape)

    with mock.patch.object(interpreter, "_convert_float", rounded):
        yield


@contextmanager
def language_replaced_once_per_launch() -> Iterator[None]:
    """Makes the interpreter faster; what it computes stays.

    At each call of a kernel's helper function it replaces all functions of ``triton.language`` that are replaced
    already, which took a third of the time of these tests.
    """
    replace: Callable[..., Any] = interpreter._patch_lang
    launch: Callable[..., Any] = interpreter.GridExecutor.__call__
    replaced: set[int] = set()

    def replace_once(fn: Any) -> Any:
        modules = {id(each) for each in fn.__globals__.values() if each is tl or each is tl.core}
        if modules and modules <= replaced:
            return None
        replaced.update(modules)
        return replace(fn)

    def fresh(self: Any, *arguments: Any, **options: Any) -> Any:
        # The interpreter undoes its replacements after a launch.
        replaced.clear()
        return launch(self, *arguments, **options)

    with (
        mock.patch.object(interpreter, "_patch_lang", replace_once),
        mock.patch.object(interpreter.GridExecutor, "__call__", fresh),
    ):
        yield
