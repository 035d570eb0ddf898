"""The concat-free functions on Triton kernels: CUDA GPUs, and any device under Triton's interpreter.

Imported when it is first asked for: ``import exda_primitives`` needs no Triton.
"""

from .channel import cross, cross_obstacle, mdta, mdta_obstacle

__all__ = ["cross", "cross_obstacle", "mdta", "mdta_obstacle"]
