"""Residual steps of transformer blocks on the CPU, strip by strip, by PyTorch's own operations."""

from .attention import attention_step
from .feed_forward import gated_step
from .unsupported import step_unsupported_reason

__all__ = ["attention_step", "gated_step", "step_unsupported_reason"]
