"""Starting kernels by little of Python's time, in the configuration that is fastest here.

Triton spends more time on a call than a small kernel takes: it looks at every argument, and at all it ever compiled.
Here the first start of its kind goes through Triton; what it then handed to the GPU's driver, later ones hand over
themselves. Of a kind are starts with the same numbers, and tensors of the same dtypes that are aligned alike.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import driver, errors

from ...errors import InputError
from .choices import Choices
from .launch import INTERPRETED

Grid = tuple[int, ...] | Callable[[dict[str, Any]], tuple[int, ...]]
"""Programs, or a function of what a configuration sets that gives them."""

_VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
_DIRECT = (3, 2) <= _VERSION <= (3, 9)
"""Whether it is known how this version of Triton starts what it compiled; any other is asked at every start."""
_TAKES_CONSTANTS = _VERSION >= (3, 3)
"""Whether what it compiled is given the constants as well."""
_HOOKS: Any = triton.knobs.runtime if hasattr(triton, "knobs") else CompiledKernel
_MOST_STARTS = 4096
_DOES_NOT_FIT: tuple[type[Exception], ...] = tuple(
    getattr(errors, name) for name in ("OutOfResources", "PTXASError") if hasattr(errors, name)
)


class _Start(NamedTuple):
    """What a start of one kind takes, beside arguments and the number of programs."""

    config: dict[str, Any]
    launch: Callable[..., None]
    function: object
    metadata: object
    constants: tuple[Any, ...]


class Kernel:
    """A Triton kernel, started as ``kernel[grid](*arguments, **constants)`` on the GPU of its first argument, a tensor.

    Args:
        fn: what ``triton.jit`` made.
        configs: that it may take. Of several, the fastest is found out once for every kind of start: for the constants,
            the dtypes, whether rows are aligned, and the size of the largest tensor in powers of two. It is kept on
            disk, see :mod:`.choices`. Make that call before a CUDA graph is captured. Under the interpreter, where
            times mean nothing, the first is taken.
    """

    def __init__(self, fn: Any, configs: Sequence[triton.Config]) -> None:
        self.fn = fn
        self.configs = list(configs)
        self.arg_names: list[str] = fn.arg_names
        self.__name__: str = fn.__name__
        self.do_bench: Callable[..., Sequence[float]] = _do_bench
        self.timings: dict[triton.Config, float] = {}
        """In ms, of the configurations that were timed last."""
        parameters = inspect.signature(fn.fn).parameters.values()
        self.tunes = len(self.configs) > 1 and not INTERPRETED
        self._constant = [index for index, each in enumerate(parameters) if "constexpr" in str(each.annotation)]
        self._choices: dict[str, Choices] = {}
        self._starts: dict[tuple[Any, ...], _Start] = {}
        self._lock = threading.Lock()

    def __getitem__(self, grid: Grid) -> Callable[..., None]:
        return partial(self.run, grid)

    def run(self, grid: Grid, *arguments: Any, **constants: Any) -> None:
        """Starts it.

        Raises:
            InputError: if no configuration fits this GPU.
        """
        device = arguments[0].get_device()
        if device >= 0 and device != torch.cuda.current_device():
            # Kernels start on the current GPU.
            with torch.cuda.device(device):
                return self.run(grid, *arguments, **constants)
        key = (
            device,
            *[x if type(x) is int or x is None else _kind(x) for x in arguments],
            *constants.values(),
        )
        start = self._starts.get(key)
        if start is None or _watched():
            return self._through_triton(key, grid, arguments, constants)
        programs = grid(start.config) if callable(grid) else grid
        if not _TAKES_CONSTANTS:
            arguments = tuple(x for index, x in enumerate(arguments) if index not in self._constant)
        start.launch(
            programs[0],
            programs[1] if len(programs) > 1 else 1,
            programs[2] if len(programs) > 2 else 1,
            driver.active.get_current_stream(device),
            start.function,
            start.metadata,
            None,
            None,
            None,
            *arguments,
            *start.constants,
        )
        return None

    def forget(self) -> None:
        """What this process knows of configurations and of what Triton compiled."""
        self._choices.clear()
        self._starts.clear()

    def _through_triton(
        self, key: tuple[Any, ...], grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]
    ) -> None:
        several = self.tunes and len(self.configs) > 1
        config = self._fastest(grid, arguments, constants) if several else self.configs[0]
        made = self.start(config, grid, arguments, constants)
        if not (_DIRECT and isinstance(made, CompiledKernel)):
            return
        if len(self._starts) >= _MOST_STARTS:
            self._starts.clear()
        rest = self.arg_names[len(arguments) :] if _TAKES_CONSTANTS else []
        values = {**constants, **config.kwargs}
        self._starts[key] = _Start(
            config.kwargs, made.run, made.function, made.packed_metadata, tuple(values[name] for name in rest)
        )

    def start(self, config: triton.Config, grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        """Starts it in this configuration, through Triton; returns what Triton compiled."""
        programs = grid(config.kwargs) if callable(grid) else grid
        return self.fn.run(*arguments, grid=programs, warmup=False, **config.all_kwargs() | constants)

    def _fastest(self, grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]) -> triton.Config:
        named = {str(config): config for config in self.configs}
        kind = self.kind(arguments, constants)
        with self._lock:
            choices = self._choices_on(arguments[0].device)
            config = named.get(choices.get(kind) or "")
            if config is None:
                config, timed = self._timed(lambda each: self.start(each, grid, arguments, constants))
                if timed:
                    choices.set(kind, str(config))
        return config

    def _timed(self, start: Callable[[triton.Config], object]) -> tuple[triton.Config, bool]:
        """The configuration that is fastest, and whether that is known."""
        timings: dict[triton.Config, float] = {}
        untimed: list[triton.Config] = []
        reason: Exception | None = None
        for config in self.configs:
            try:
                start(config)
                timings[config] = self.do_bench(partial(start, config), quantiles=(0.5, 0.2, 0.8))[0]
            except _DOES_NOT_FIT as error:
                reason = error
            except torch.OutOfMemoryError:
                # The timer empties the cache by a large buffer, which a card that is nearly full does not hold.
                untimed.append(config)
        self.timings = timings
        if not (timings or untimed):
            raise InputError(
                f"{self.__name__}: none of its {len(self.configs)} configurations fits this GPU ({reason}); use the "
                "'torch' backend for this input"
            ) from reason
        return (min(timings, key=timings.__getitem__) if timings else untimed[0]), not untimed

    def kind(self, arguments: tuple[Any, ...], constants: dict[str, Any]) -> str:
        """What a configuration is chosen for."""
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        largest = max(tensors, key=Tensor.numel)
        aligned = not any(stride % 16 for stride in largest.stride()[:-1])
        given = [arguments[index] for index in self._constant if index < len(arguments)]
        dtypes = [
            str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else "-"
            for x in arguments
            if x is None or isinstance(x, Tensor)
        ]
        size = f"2**{(largest.numel() - 1).bit_length()}{'' if aligned else ' unaligned'}"
        return " ".join([*(f"{name}={value}" for name, value in constants.items()), *map(str, given), *dtypes, size])

    def _choices_on(self, device: torch.device) -> Choices:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        if name not in self._choices:
            configs = map(str, self.configs)
            self._choices[name] = Choices(self.__name__, name, triton.__version__, _source(self.fn), *configs)
        return self._choices[name]


def launched(fn: Any) -> Kernel:
    """A kernel of one configuration."""
    return Kernel(fn, [triton.Config({})])


def autotuned(*configs: triton.Config) -> Callable[[Any], Kernel]:
    """A kernel of several configurations, of which the first should suit everybody."""
    return partial(Kernel, configs=configs)


def _kind(x: Any) -> Any:
    """What Triton compiles for, of an argument that is no number."""
    return (x.dtype, x.data_ptr() % 16 == 0) if isinstance(x, Tensor) else x


def _watched() -> bool:
    """Whether somebody, a profiler, wants to hear of every start."""
    hook = _HOOKS.launch_enter_hook
    return hook is not None and bool(getattr(hook, "calls", True))


def _source(fn: Any) -> str:
    """Of the kernel and of all that it calls."""
    return str(getattr(fn, "cache_key", ""))


def _do_bench(call: Callable[[], Any], quantiles: tuple[float, ...]) -> Any:
    return triton.testing.do_bench(call, quantiles=quantiles)
