"""What kernels that multiply tiles share: the product, its precision, tile sizes, and the layout of maps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import INTERPRETED

_INTERPRETED: tl.constexpr = tl.constexpr(INTERPRETED)


@triton.jit
def dot(a: tl.tensor, b: tl.tensor, acc: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """Returns ``acc + a @ b`` in the dtype of ``acc``: float32, or float64 under the interpreter."""
    if acc.dtype == tl.float64:
        # tl.dot takes float64 in the latest versions only.
        return acc + tl.sum(a[:, :, None] * b[None, :, :], 1)
    else:
        if _INTERPRETED:
            # Triton's interpreter multiplies the bit patterns of bfloat16.
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def scaled_dot(a: tl.tensor, b: tl.tensor, acc: tl.tensor, PRECISION: tl.constexpr, FINE: tl.constexpr) -> tl.tensor:
    """Returns ``acc + a @ b`` for an ``a`` of ``acc``'s dtype whose numbers a half type may not hold, and any ``b``.

    Tensor cores need both operands in the dtype of ``b``. If that is a half type, ``a`` becomes a half-type matrix with
    one factor per row, so that float16 neither overflows nor underflows; if ``FINE``, the sum of two of these, which
    keeps 16 (bfloat16) or 22 (float16) bits.
    """
    if b.dtype == acc.dtype:
        return dot(a, b, acc, PRECISION)
    else:
        # a = size (high + rest), |high| <= 1: size is each row's largest number.
        size = tl.max(tl.abs(a), 1)
        size = tl.where(size > 0, size, 1.0)
        a = a / size[:, None]
        high = a.to(b.dtype)
        # Not into acc, which is not divided by size.
        product = dot(high, b, tl.zeros_like(acc), PRECISION)
        if FINE:
            product = dot((a - high.to(tl.float32)).to(b.dtype), b, product, PRECISION)
        return acc + size[:, None] * product


def accumulation_type(dtype: torch.dtype) -> tl.dtype:
    """Returns the dtype in which kernels accumulate, as Triton names it: see ``precision.accumulation_dtype``."""
    return tl.float64 if dtype is torch.float64 else tl.float32


@torch.compiler.assume_constant_result
def tf32_allowed() -> bool:
    """Whether PyTorch's own float32 products on GPUs may use TF32; torch.compile asks once, as it traces."""
    matmul = torch.backends.cuda.matmul
    # PyTorch 2.9 has a new switch, and refuses to read the old one once the new one was used.
    return bool(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)


def dot_precision(x: Tensor) -> str:
    """Returns tl.dot's ``input_precision`` for float32: exact, unless PyTorch's own products of ``x`` may use TF32."""
    return "tf32" if tf32_allowed() and x.is_cuda else "ieee"


def largest_side(x: Tensor) -> int:
    """Returns the largest side of square tiles of products of ``x``: 64 for exact float32, to fit the registers."""
    return 64 if x.dtype is torch.float32 and dot_precision(x) == "ieee" else 128


def along_pixels(x: Tensor) -> Tensor:
    """Returns ``x``, (..., N), with neighbouring pixels in neighbouring memory: itself where it is so, else a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def vectorisable(*maps: Tensor) -> bool:
    """Whether every row of maps (B, C, N) starts at a multiple of 16 bytes, the size of the widest load."""
    starts = [x.data_ptr() for x in maps] + [stride * x.element_size() for x in maps for stride in x.stride()[:2]]
    return not any(start % 16 for start in starts)


def tile_side(length: int, largest: int = 128) -> int:
    """Returns the side of tiles that cover ``length``: a power of two from 16, ``tl.dot``'s least, to ``largest``."""
    return min(max(1 << (length - 1).bit_length(), 16), largest)


def pixels_per_split(pixels: int, programs: int, device: torch.device) -> int:
    """Returns how many pixels a program sums, so that splits of ``pixels`` times ``programs`` fill the GPU.

    A power of two, at least 256: no tile of pixels is larger than a split, and kernels, which are compiled for a split,
    meet few of them. It depends on the sizes and the GPU's model alone, so that sums are the same in every run.

    Args:
        pixels: of a map, N.
        programs: into how many the work is cut already, by images, heads and tiles.
        device: of the maps.
    """
    splits = max(4 * _multiprocessors(device) // programs, 1)
    return max(1 << (-(-pixels // splits) - 1).bit_length(), 256)


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
