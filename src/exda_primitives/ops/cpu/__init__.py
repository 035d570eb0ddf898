"""Attentions and residual steps of transformer blocks on the CPU, strip by strip, by PyTorch's own operations."""

from .attention import attention, attention_step
from .feed_forward import gated_step
from .unsupported import attention_unsupported_reason, step_unsupported_reason

__all__ = [
    "attention",
    "attention_step",
    "attention_unsupported_reason",
    "gated_step",
    "step_unsupported_reason",
]
