"""Residual steps of transformer blocks on the CPU, strip by strip, by PyTorch's own operations."""

from .attention import attention_step
from .feed_forward import gated_step
from .obstacles import step_obstacle

__all__ = ["attention_step", "gated_step", "step_obstacle"]
