"""Number formats that a case computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """A number format.

    Attributes:
        name: as on the command line and in results.
        dtype: of weights and images; of a training step in 16 bits, that of autocast.
        tf32: whether matrix products and convolutions of float32 may round their factors to TF32.
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
        """Allows or forbids TF32 for the length of the block."""
        # PyTorch's own defaults differ: forbidden in matrix products, allowed in convolutions.
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
