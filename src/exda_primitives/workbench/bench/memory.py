"""Measures the peak memory of a step, above its weights, and recognises out-of-memory errors."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..shared.live_bytes import LiveBytes


class Peak:
    """Measures a step's peak memory in bytes, above what is held when this object is made (weights, image, networks).

    The output counts; in training the gradients and the optimizer's state count as well. On CUDA the peak covers all
    that PyTorch's allocator handed out, workspaces of libraries included; on the CPU, the tensors that operations make.

    Args:
        device: where the step runs.
        held: tensors that the step uses but does not make, such as weights and buffers. Used only on the CPU.
    """

    def __init__(self, device: torch.device, held: Sequence[Tensor]) -> None:
        self.device, self.held = device, held
        self.before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0

    def of(self, step: Callable[[], object]) -> int:
        """Runs the step twice and returns the peak of the second call in bytes.

        On the CPU it is the peak of both calls, since what the first call makes and keeps has to count.
        """
        if self.device.type != "cuda":
            return self._counted(step)
        step()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        step()
        return self.so_far()

    def so_far(self) -> int:
        """Returns the peak in bytes since the statistics were last reset. CUDA only."""
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - self.before

    def _counted(self, step: Callable[[], object]) -> int:
        with LiveBytes() as live:
            for tensor in self.held:
                # LiveBytes counts a storage when it first sees it; this view makes it do so before the step runs.
                tensor.detach()
            before = live.now
            step()
            step()
        return live.peak - before


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that there is too little memory."""
    # On the CPU, PyTorch raises a plain RuntimeError, told apart only by its text.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def free_memory(device: torch.device) -> None:
    """Frees memory that nothing refers to any more, and PyTorch's CUDA cache."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
