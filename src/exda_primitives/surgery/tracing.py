"""Under torch.fx, a primitive is one call in the graph: what it computes depends on its input's size and dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_symbolic(x: object) -> bool:
    """Whether torch.fx traces: ``x`` stands for a tensor that is not there."""
    return isinstance(x, torch.fx.Proxy)


def as_one_call(module: nn.Module, *arguments: Any, **keywords: Any) -> Any:
    """The call of ``module`` in the graph of whoever traces these arguments.

    Raises:
        torch.fx.proxy.TraceError: where ``module`` is itself what is traced.
    """
    tracer = next(each.tracer for each in (*arguments, *keywords.values()) if is_symbolic(each))
    if tracer.root is module:
        raise torch.fx.proxy.TraceError(
            f"{type(module).__name__} cannot be traced by itself: it is one call in the graph of a model that holds it."
        )
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, keywords)
