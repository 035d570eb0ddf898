"""The concat-free functions on Triton kernels: CUDA GPUs, and any device under Triton's interpreter.

Imported when it is first asked for: ``import exda_primitives`` needs no Triton.
"""

from .channel import cross, cross_obstacle, mdta, mdta_obstacle
from .step import attention_step, gated_step, normalise, step_obstacle

__all__ = [
    "attention_step",
    "cross",
    "cross_obstacle",
    "gated_step",
    "mdta",
    "mdta_obstacle",
    "normalise",
    "step_obstacle",
]
