"""Under the tests' interpreter, float32 is converted to bfloat16 as PyTorch does."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st


@triton.jit
def convert_kernel(x, out, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty))


def converted(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=dtype)
    convert_kernel[(1,)](x, out, block=len(x))
    return out


@given(st.lists(st.floats(width=32), min_size=8, max_size=8))
def test_numbers_round_as_in_pytorch(numbers: list[float]) -> None:
    x = torch.tensor(numbers, dtype=torch.float32)
    torch.testing.assert_close(converted(x, torch.bfloat16), x.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_ties_and_special_values_round_as_in_pytorch() -> None:
    # Two ties, three NaNs, the largest number, infinity, the smallest subnormal.
    bits = torch.tensor([0x3F808000, 0x3F818000, 0x7FFFFFFF, 0x7F800001, -1, 0x7F7FFFFF, 0x7F800000, 1])
    x = bits.to(torch.int32).view(torch.float32)
    torch.testing.assert_close(converted(x, torch.bfloat16), x.bfloat16(), rtol=0, atol=0, equal_nan=True)
