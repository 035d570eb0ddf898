"""The number formats that a case can compute in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A number format.

    Attributes:
        name: its name on the command line and in results.
        dtype: dtype of weights and images; in a 16-bit training step, dtype of autocast.
        tf32: whether float32 matrix products and convolutions may round their inputs to TF32.
    """

    name: str
    dtype: torch.dtype
    tf32: bool = False

    @property
    def half(self) -> bool:
        """Whether a number has 16 bits."""
        return self.dtype.itemsize == 2

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Allows or forbids TF32 within the ``with`` block."""
        # PyTorch's defaults differ: TF32 is off for matrix products, on for convolutions.
        before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


FLOAT64 = Precision("float64", torch.float64)
FLOAT32 = Precision("float32", torch.float32)
PRECISIONS = {
    each.name: each
    for each in (
        FLOAT32,
        Precision("tf32", torch.float32, tf32=True),
        Precision("bf16", torch.bfloat16),
        Precision("fp16", torch.float16),
    )
}
