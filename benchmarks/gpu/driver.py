"""A driver for Triton to compile with on a machine without a GPU."""

from __future__ import annotations

import torch
from triton.backends.compiler import GPUTarget

CAPABILITY = 90
"""Compute capability times 10: 9.0, the H100's and H200's."""


class Driver:
    """Answers what Triton asks CUDA's driver for while it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")
