"""Starts Triton kernels with little Python overhead, in the configuration that is fastest on this GPU.

Triton's own launch takes longer than a small kernel runs: it inspects every argument and looks up all that it has
compiled. Here only the first start of a kind goes through Triton; later ones call the GPU driver's launch function
themselves, as Triton did then. Two starts are of one kind if their integers and constants are equal and their tensors
agree in dtype and 16-byte alignment.
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
from .config_cache import ConfigCache
from .launch import INTERPRETED

Grid = tuple[int, ...] | Callable[[dict[str, Any]], tuple[int, ...]]
"""Number of programs in up to three dimensions, or a function that computes it from a configuration's values."""

_VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
_DIRECT = (3, 2) <= _VERSION <= (3, 9)
"""Whether this version of Triton is known to launch as ``CompiledLaunch`` does; else all starts go through Triton."""
_TAKES_CONSTANTS = _VERSION >= (3, 3)
"""Whether the compiled launcher takes the constexpr arguments as well."""
# Where this version of Triton keeps its launch hooks.
_HOOKS: Any = triton.knobs.runtime if hasattr(triton, "knobs") else CompiledKernel
# Starts that a kernel keeps; at the limit all are dropped, so that ever new sizes do not fill the memory.
_MOST_STARTS = 4096
# What Triton raises for a configuration that does not fit the GPU.
_DOES_NOT_FIT: tuple[type[Exception], ...] = tuple(
    getattr(errors, name) for name in ("OutOfResources", "PTXASError") if hasattr(errors, name)
)


class CompiledLaunch(NamedTuple):
    """A compiled kernel, started by ``launch(*programs, stream, function, metadata, None, None, None, *values)``.

    The three None are the launch metadata and the hooks before and after a launch, which only profilers set.

    Attributes:
        config: values that its configuration sets, by name.
        launch: launch function that Triton compiled for the kernel's signature.
        function: the driver's handle of the compiled kernel.
        metadata: launch options (warps, shared memory) as ``launch`` takes them.
        left_out: positions of constexpr arguments that ``launch`` does not take.
        constants: constexpr values that ``launch`` takes after the arguments.
    """

    config: dict[str, Any]
    launch: Callable[..., None]
    function: object
    metadata: object
    left_out: Sequence[int]
    constants: tuple[Any, ...]

    def programs(self, grid: Grid) -> tuple[int, int, int]:
        """Number of programs in each of the three dimensions."""
        found = grid(self.config) if callable(grid) else grid
        return (*found, 1, 1)[:3]  # type: ignore[return-value]

    def values(self, arguments: Sequence[Any]) -> list[Any]:
        """Values that ``launch`` takes; a tensor among the arguments may be given as its address."""
        if self.left_out:
            arguments = [x for index, x in enumerate(arguments) if index not in self.left_out]
        return [*arguments, *self.constants]


class Kernel:
    """A Triton kernel, started as ``kernel[grid](*arguments, **constants)`` on the GPU of its first argument, a tensor.

    Args:
        fn: function that ``triton.jit`` returned.
        configs: configurations to choose from. Of several, the fastest is found by timing them once for each
            combination of constants, dtypes, alignment of rows and size of the largest tensor in powers of two; it is
            kept on disk (``config_cache``). Make that first call before a CUDA graph is captured. Under the
            interpreter, where times mean nothing, the first is taken.
    """

    def __init__(self, fn: Any, configs: Sequence[triton.Config]) -> None:
        self.fn = fn
        self.configs = list(configs)
        self.arg_names: list[str] = fn.arg_names
        self.__name__: str = fn.__name__
        self.do_bench: Callable[..., Sequence[float]] = _do_bench
        self.timings: dict[triton.Config, float] = {}
        """Times in ms of the configurations that were timed last."""
        parameters = inspect.signature(fn.fn).parameters.values()
        self.tunes = len(self.configs) > 1 and not INTERPRETED
        self._constant = [index for index, each in enumerate(parameters) if "constexpr" in str(each.annotation)]
        self._config_caches: dict[str, ConfigCache] = {}
        self._starts: dict[tuple[Any, ...], CompiledLaunch] = {}
        self._lock = threading.Lock()

    def __getitem__(self, grid: Grid) -> Callable[..., None]:
        return partial(self.run, grid)

    def run(self, grid: Grid, *arguments: Any, **constants: Any) -> None:
        """Starts the kernel on the current stream of its first argument's GPU.

        Raises:
            InputError: if no configuration fits this GPU.
        """
        device = arguments[0].get_device()
        if device >= 0 and device != torch.cuda.current_device():
            # The driver starts a kernel on the current GPU, which has to be that of the tensors.
            with torch.cuda.device(device):
                return self.run(grid, *arguments, **constants)
        # Triton compiles anew for other constants, dtypes, alignments and kinds of integers (1, multiples of 16): one
        # key has one compiled kernel.
        key = (
            device,
            *[x if type(x) is int or x is None else _kind(x) for x in arguments],
            *constants.values(),
        )
        start = self._starts.get(key)
        callback = getattr(_listener, "callback", None)
        if callback is not None:
            # A recorder is not to see the operations that timing and Triton's interpreter do on tensors.
            with _disable_current_modes():
                self._through_triton(key, grid, arguments, constants)
            callback(self, self._starts.get(key), grid, arguments, constants)
        elif start is None or profiler_active():
            self._through_triton(key, grid, arguments, constants)
        else:
            about = current_stream(device), start.function, start.metadata, None, None, None
            start.launch(*start.programs(grid), *about, *start.values(arguments))
        return None

    def forget(self) -> None:
        """Drops the chosen configurations and compiled starts of this process; what is on disk stays."""
        self._config_caches.clear()
        self._starts.clear()

    def _through_triton(
        self, key: tuple[Any, ...], grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]
    ) -> None:
        """Starts through Triton, in the fastest configuration, and keeps for ``key`` what a direct start takes."""
        several = self.tunes and len(self.configs) > 1
        config = self._fastest(grid, arguments, constants) if several else self.configs[0]
        made = self.start(config, grid, arguments, constants)
        if not (_DIRECT and isinstance(made, CompiledKernel)):
            return
        if len(self._starts) >= _MOST_STARTS:
            self._starts.clear()
        # From Triton 3.3 on, the launcher takes every parameter in order; before, only those that are no constants.
        left_out: Sequence[int] = () if _TAKES_CONSTANTS else self._constant
        rest = self.arg_names[len(arguments) :] if _TAKES_CONSTANTS else []
        values = tuple((constants | config.kwargs)[name] for name in rest)
        self._starts[key] = CompiledLaunch(
            config.kwargs, made.run, made.function, made.packed_metadata, left_out, values
        )

    def start(self, config: triton.Config, grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        """Starts the kernel in this configuration through Triton; returns what Triton compiled."""
        programs = grid(config.kwargs) if callable(grid) else grid
        options = config.all_kwargs() | constants
        if INTERPRETED:
            # The interpreter has no warps or stages, and its older versions refuse some of these options.
            options = {name: value for name, value in options.items() if name in self.arg_names}
        return self.fn.run(*arguments, grid=programs, warmup=False, **options)

    def _fastest(self, grid: Grid, arguments: tuple[Any, ...], constants: dict[str, Any]) -> triton.Config:
        """The configuration that was chosen for such arguments before, here or on disk; else the fastest by timing."""
        named = {str(config): config for config in self.configs}
        kind = self.kind(arguments, constants)
        # Threads that come meanwhile wait for the choice instead of timing the same configurations.
        with self._lock:
            cache = self._config_cache_for(arguments[0].device)
            config = named.get(cache.get(kind) or "")
            if config is None:
                config, timed = self._timed(lambda each: self.start(each, grid, arguments, constants))
                if timed:
                    cache.set(kind, str(config))
        return config

    def _timed(self, start: Callable[[triton.Config], object]) -> tuple[triton.Config, bool]:
        """Returns the fastest configuration, and whether all that fit were timed: only then is the choice kept."""
        timings: dict[triton.Config, float] = {}
        untimed: list[triton.Config] = []
        reason: Exception | None = None
        for config in self.configs:
            try:
                start(config)
                # The first quantile is the median.
                timings[config] = self.do_bench(partial(start, config), quantiles=(0.5, 0.2, 0.8))[0]
            except _DOES_NOT_FIT as error:
                reason = error
            except torch.OutOfMemoryError:
                # The timer clears the GPU's cache with a large buffer, for which a nearly full card has no room.
                untimed.append(config)
        self.timings = timings
        if not (timings or untimed):
            raise InputError(
                f"{self.__name__}: none of its {len(self.configs)} configurations fits this GPU ({reason}); use the "
                "'torch' backend for this input"
            ) from reason
        return (min(timings, key=timings.__getitem__) if timings else untimed[0]), not untimed

    def kind(self, arguments: tuple[Any, ...], constants: dict[str, Any]) -> str:
        """Returns the key of a choice: constants, dtypes, and the largest tensor's size and alignment.

        The size counts in powers of two, so that maps of similar size are timed once.
        """
        tensors = [x for x in arguments if isinstance(x, Tensor)]
        largest = max(tensors, key=Tensor.numel)
        # In elements, as in ``launch.row_aligned``.
        aligned = not any(stride % 16 for stride in largest.stride()[:-1])
        given = [arguments[index] for index in self._constant if index < len(arguments)]
        dtypes = [
            str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else "-"
            for x in arguments
            if x is None or isinstance(x, Tensor)
        ]
        size = f"2**{(largest.numel() - 1).bit_length()}{'' if aligned else ' unaligned'}"
        return " ".join([*(f"{name}={value}" for name, value in constants.items()), *map(str, given), *dtypes, size])

    def _config_cache_for(self, device: torch.device) -> ConfigCache:
        """Returns the cache for this GPU's model, Triton's version, and this kernel's source and configurations."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        if name not in self._config_caches:
            configs = map(str, self.configs)
            self._config_caches[name] = ConfigCache(self.__name__, name, triton.__version__, _source(self.fn), *configs)
        return self._config_caches[name]


def single_config(fn: Any) -> Kernel:
    """Makes a kernel of a single configuration, whose block sizes are set at each start."""
    return Kernel(fn, [triton.Config({})])


def autotuned(*configs: triton.Config) -> Callable[[Any], Kernel]:
    """Makes a kernel of several configurations; put first the one that should do well everywhere."""
    return partial(Kernel, configs=configs)


def _kind(x: Any) -> Any:
    """What Triton compiles a tensor argument for: its dtype, and whether it starts at a multiple of 16 bytes."""
    return (x.dtype, x.data_ptr() % 16 == 0) if isinstance(x, Tensor) else x


_listener = threading.local()


@contextmanager
def on_launch(callback: Callable[..., None]) -> Iterator[None]:
    """Calls ``callback(kernel, launch, grid, arguments, constants)`` for every kernel that this thread starts inside.

    ``launch`` is None if later starts of this kind have to go through Triton as well. Within an inner block, only the
    inner callback is called.
    """
    outer = getattr(_listener, "callback", None)
    _listener.callback = callback
    try:
        yield
    finally:
        _listener.callback = outer


def current_stream(device: int) -> int:
    """Returns the GPU's current stream as the driver's handle; 0 under the interpreter, which has no streams."""
    return driver.active.get_current_stream(device) if not INTERPRETED else 0


def profiler_active() -> bool:
    """Whether a launch hook is set, as profilers do, that has to see every start."""
    # Some versions of Triton always have a hook, which is a chain of calls that may be empty.
    hook = _HOOKS.launch_enter_hook
    return hook is not None and bool(getattr(hook, "calls", True))


def _source(fn: Any) -> str:
    """Returns Triton's hash of the source of the kernel and of all functions that it calls; "" if there is none."""
    return str(getattr(fn, "cache_key", ""))


def _do_bench(call: Callable[[], Any], quantiles: tuple[float, ...]) -> Any:
    return triton.testing.do_bench(call, quantiles=quantiles)
