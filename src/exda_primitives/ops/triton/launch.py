"""Conditions and sizes of kernel launches: devices and dtypes that kernels take, whether Triton interprets, blocks."""

from __future__ import annotations

import torch
import triton

from ...errors import InputError

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MINIMUM_CAPABILITY = (8, 0)


def _nothing() -> None:
    pass


# Triton reads TRITON_INTERPRET when it decorates a function, and the environment may change later: so a decorated
# function is looked at.
INTERPRETED = not isinstance(triton.jit(_nothing), triton.JITFunction)


def device_unsupported_reason(x: torch.Tensor) -> str | None:
    """Why no kernel can run on the device of ``x``; None if one can.

    Kernels run on CUDA GPUs of compute capability 8.0 and newer and, under Triton's interpreter
    (``TRITON_INTERPRET=1`` before anything imports Triton), on any device.
    """
    if INTERPRETED:
        return None
    if x.device.type != "cuda":
        return f"the tensor is on {x.device}; the kernels need a CUDA GPU (or Triton's interpreter)"
    if torch.version.hip is not None:
        return "PyTorch was built for ROCm; the kernels were written for CUDA"
    capability = torch.cuda.get_device_capability(x.device)
    if capability < MINIMUM_CAPABILITY:
        return f"{x.device} has compute capability {capability}; the kernels need {MINIMUM_CAPABILITY} or newer"
    return None


def dtype_unsupported_reason(x: torch.Tensor) -> str | None:
    """Why no kernel takes the dtype of ``x``; None if one does.

    Kernels take float32, float16 and bfloat16, and under the interpreter float64 as well, for exact checks.
    """
    if x.dtype in DTYPES or (INTERPRETED and x.dtype is torch.float64):
        return None
    return f"the dtype is {x.dtype}; the kernels take {', '.join(map(str, DTYPES))}"


def require(kernel: str, reason: str | None) -> None:
    """Refuses input that a kernel cannot take.

    Raises:
        InputError: if there is a reason; it names the kernel and the reason.
    """
    if reason is not None:
        raise InputError(f"{kernel}: {reason}; use the 'torch' backend for this input")


def contiguous(x: torch.Tensor | None) -> torch.Tensor | None:
    """Returns a parameter contiguous, or None if it is absent."""
    return None if x is None else x.contiguous()


def rows_in_memory(x: torch.Tensor) -> torch.Tensor:
    """Returns matrices (B, O, J) with the rows of each one after the other in memory; the images may be anywhere."""
    return x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous()


def summed(partial: torch.Tensor) -> torch.Tensor:
    """Sums partial sums (parts, ...) over the parts, in a fixed order; a single part is the sum, without a launch."""
    return partial.squeeze(0) if len(partial) == 1 else partial.sum(0)


def divide_up(a: int, b: int) -> int:
    """The smallest number of blocks of ``b`` that hold ``a``."""
    return -(-a // b)


def row_aligned(x: torch.Tensor) -> bool:
    """Whether every row of a map (B, C, H, W) starts where Triton's widest loads can: at a multiple of 16 elements.

    Triton's compiler knows of an integer only whether it is a multiple of 16, in elements; of any other stride it
    assumes nothing, and loads element by element.
    """
    return x.data_ptr() % 16 == 0 and x.stride(3) == 1 and not any(n % 16 for n in (*x.stride()[:3], x.shape[3]))


def column_block(width: int) -> int:
    """Columns of a map that one block holds: a power of two up to 1024 of which few are beyond the map.

    Examples:
        >>> [column_block(width) for width in (1, 5, 20, 48, 64, 720, 1024, 1100, 4000)]
        [1, 8, 32, 16, 64, 256, 1024, 128, 1024]
    """
    blocks = [size for size in (1024, 512, 256, 128, 64, 32, 16) if size < 2 * width]
    blocks = blocks or [1 << (width - 1).bit_length()]
    # The largest block that pads rows by at most an eighth; if there is none, the one that pads least.
    padded = {size: size * divide_up(width, size) for size in blocks}
    return next((size for size in blocks if 8 * padded[size] <= 9 * width), min(blocks, key=lambda size: padded[size]))
