"""The concat-free functions on Triton kernels: CUDA GPUs, and any device under Triton's interpreter.

Imported at first use, so that ``import exda_primitives`` needs no Triton.
"""

from .channel import cross, cross_unsupported_reason, mdta, mdta_unsupported_reason
from .step import attention_step, gated_step, normalise, step_unsupported_reason

__all__ = [
    "attention_step",
    "cross",
    "cross_unsupported_reason",
    "gated_step",
    "mdta",
    "mdta_unsupported_reason",
    "normalise",
    "step_unsupported_reason",
]
