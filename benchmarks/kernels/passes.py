"""Lists what the fused blocks of a Restormer start, level by level, and the bytes that each start has to move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks.gpu import blocks, launches
from benchmarks.gpu.blocks import Level
from benchmarks.gpu.kernels import bytes_of, moved_bytes
from benchmarks.gpu.launches import Recording, Spec
from exda_primitives.ops.triton.kernel import Kernel
from exda_primitives.patching.registry import known_families
from exda_primitives.workbench.bench.precision import PRECISIONS

_LEVELS = (*blocks.LEVELS, blocks.LAST)
_ALLOCATIONS = ("empty", "new_empty")


@dataclass(frozen=True)
class Network:
    """A Restormer whose blocks are fused.

    Attributes:
        dtype: a name in ``bench.precision.PRECISIONS``.
        patched: whether the blocks have the primitives.
        training: whether it makes a training step; 16-bit formats then run under autocast.
    """

    dtype: str
    patched: bool
    training: bool


@dataclass(frozen=True)
class Pass:
    """A start of a kernel or of one of PyTorch's own operations in a block.

    Attributes:
        level: level of the network.
        blocks: number of blocks in this level.
        name: name of the operation, or of the kernel without ``_kernel``.
        launch: what the kernel is compiled for; None for an operation.
        moved: bytes that it has to read and write in one block, each tensor once.
    """

    level: str
    blocks: int
    name: str
    launch: Spec | None
    moved: int


def passes(size: int, network: Network) -> Iterator[Pass]:
    """Yields the passes of one block per level, in the order in which they start.

    Args:
        size: side of the square image in pixels.
        network: the network whose blocks are run.

    Raises:
        RuntimeError: under Triton's interpreter.
    """
    for level, block in zip(_LEVELS, blocks.of_network(size, size, patched=network.patched), strict=True):
        yield from _of_block(level, Recording(block, network.dtype, network.training))


def _of_block(level: Level, recording: Recording) -> list[Pass]:
    found: list[Pass] = []

    def started(kernel: Kernel, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        given = {**dict(zip(kernel.arg_names, args, strict=False)), **options}
        name = kernel.__name__.removeprefix("_").removesuffix("_kernel")
        launch = launches.spec(kernel, args, options)
        found.append(Pass(level.name, level.blocks, name, launch, moved_bytes(given)))

    def computed(name: str, tensors: Sequence[Tensor]) -> None:
        if not name.startswith(_ALLOCATIONS):
            found.append(Pass(level.name, level.blocks, name, None, bytes_of(tensors)))

    launches.run_once(recording, started, computed)
    return found


def floor(size: int, dtype: str) -> int:
    """Returns the bytes that the attentions of all blocks must move, see ``bench.bandwidth_floor``."""
    maps = sum(level.blocks * level.channels * (size // level.scale) ** 2 for level in _LEVELS)
    return known_families()["mdta"].passes * maps * PRECISIONS[dtype].dtype.itemsize
