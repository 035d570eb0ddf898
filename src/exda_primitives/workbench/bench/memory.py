"""The most memory that a step holds at a time above the weights, and errors that mean there is not enough of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..shared.live_bytes import LiveBytes


class Peak:
    """Measures a step's peak, in bytes above what is held when the object is made: weights, image, other models.

    The output counts, as do in training the gradients and the optimizer's state. On CUDA it is what PyTorch's allocator
    has handed out, work spaces of libraries included; on the CPU the tensors that operations make.

    Args:
        device: of the step.
        held: on the CPU, what the step works on and does not make: weights, buffers, image.
    """

    def __init__(self, device: torch.device, held: Sequence[Tensor]) -> None:
        self.device, self.held = device, held
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    def of(self, step: Callable[[], object]) -> int:
        """Of the second of two calls; on the CPU of both, for what the first makes and keeps counts as well."""
        if self.device.type != "cuda":
            return self._counted(step)
        step()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        step()
        return self.so_far()

    def so_far(self) -> int:
        """On CUDA, since the statistics were last reset."""
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - self.before

    def _counted(self, step: Callable[[], object]) -> int:
        with LiveBytes() as live:
            for tensor in self.held:
                # A view: the first sight of a storage counts it, and these are not to be taken for the step's own.
                tensor.detach()
            before = live.now
            step()
            step()
        return live.peak - before


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    # On the CPU, PyTorch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def tidy(device: torch.device) -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
