"""Starting kernels by little of Python's time, in the configuration that is fastest here.

Triton spends more time on a call than a small kernel takes: it looks at every argument, and at all it ever compiled.
Here the first start of its kind goes through Triton; what it then handed to the GPU's driver, later ones hand over
themselves. Of a kind are starts with the same numbers, and tensors of the same dtypes that are aligned alike.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
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


class Start(NamedTuple):
    """What starts of one kind take: ``launch(*programs, stream, function, metadata, None, None, None, *values)``.

    Attributes:
        config: what its configuration sets.
        launch: of the driver.
        function: likewise.
        metadata: likewise.
        left_out: places of arguments that are no values.
        constants: the last values.
    """

    config: dict[str, Any]
    launch: Callable[..., None]
    function: object
    metadata: object
    left_out: Sequence[int]
    constants: tuple[Any, ...]

    def programs(self, grid: Grid) -> tuple[int, int, int]:
        """In each dimension."""
        found = grid(self.config) if callable(grid) else grid
        return (*found, 1, 1)[:3]  # type: ignore[return-value]

    def values(self, arguments: Sequence[Any]) -> list[Any]:
        """What is handed over; a tensor may be its address."""
        if self.left_out:
            arguments = [x for index, x in enumerate(arguments) if index not in self.left_out]
        return [*arguments, *self.constants]


class Kernel:
    """A Triton kernel, started as ``kernel[grid](*arguments, **constants)`` on the GPU of its first argument, a tensor.

    Args:
        fn: what ``triton.jit`` made.
        configs: that it may take. Of several, the fastest is found out once for every kind of start: for the constants,
            the dtypes, whether rows are aligned, and the size of the largest tensor in powers of two. It is kept on
            disk, see ``choices``. Make that call before a CUDA graph is captured. Under the interpreter, where
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
        self._starts: dict[tuple[Any, ...], Start] = {}
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
        told = getattr(_listener, "told", None)
        if told is not None:
            # What timing and Triton's interpreter do with tensors is their own affair.
            with _disable_current_modes():
                self._through_triton(key, grid, arguments, constants)
            told(self, self._starts.get(key), grid, arguments, constants)
        elif start is None or watched():
            self._through_triton(key, grid, arguments, constants)
        else:
            about = current_stream(device), start.function, start.metadata, None, None, None
            start.launch(*start.programs(grid), *about, *start.values(arguments))
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
        left_out: Sequence[int] = () if _TAKES_CONSTANTS else self._constant
        rest = self.arg_names[len(arguments) :] if _TAKES_CONSTANTS else []
        values = tuple((constants | config.kwargs)[name] for name in rest)
        self._starts[key] = Start(config.kwargs, made.run, made.function, made.packed_metadata, left_out, values)

    def start(self, config: triton.Config, grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        """Starts it in this configuration, through Triton; returns what Triton compiled."""
        programs = grid(config.kwargs) if callable(grid) else grid
        options = config.all_kwargs() | constants
        if INTERPRETED:
            # Which knows no warps; its first versions know not all of these, either.
            options = {name: value for name, value in options.items() if name in self.arg_names}
        return self.fn.run(*arguments, grid=programs, warmup=False, **options)

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


_listener = threading.local()


@contextmanager
def listening(told: Callable[..., None]) -> Iterator[None]:
    """A region of which ``told(kernel, start, grid, arguments, constants)`` hears of every kernel that is started.

    ``start`` is None where later ones have to go through Triton as well.
    """
    _listener.told = told
    try:
        yield
    finally:
        _listener.told = None


def current_stream(device: int) -> int:
    """As the driver knows it; of the CPU, where nothing but the interpreter and mocks run, none."""
    return driver.active.get_current_stream(device) if not INTERPRETED else 0


def watched() -> bool:
    """Whether somebody, a profiler, wants to hear of every start."""
    hook = _HOOKS.launch_enter_hook
    return hook is not None and bool(getattr(hook, "calls", True))


def _source(fn: Any) -> str:
    """Of the kernel and of all that it calls."""
    return str(getattr(fn, "cache_key", ""))


def _do_bench(call: Callable[[], Any], quantiles: tuple[float, ...]) -> Any:
    return triton.testing.do_bench(call, quantiles=quantiles)
