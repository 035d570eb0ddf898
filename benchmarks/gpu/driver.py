"""What Triton asks a driver for while it compiles, for a GPU that need not be there."""

from __future__ import annotations

import torch
from triton.backends.compiler import GPUTarget

CAPABILITY = 90


class Driver:
    """Stands in for CUDA's."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")
