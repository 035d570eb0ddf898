"""Attentions and residual steps of transformer blocks on the CPU, strip by strip, by PyTorch's own operations."""

from .attention import attention, attention_step
from .feed_forward import gated_step
from .unsupported import step_unsupported_reason, takes_attention

__all__ = [
    "attention",
    "attention_step",
    "gated_step",
    "step_unsupported_reason",
    "takes_attention",
]
