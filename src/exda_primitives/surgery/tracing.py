"""torch.fx: a primitive is recorded as one call in the graph, since its code depends on the input's size and dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_symbolic(x: object) -> bool:
    """Whether ``x`` is a proxy, which stands for a tensor while torch.fx traces."""
    return isinstance(x, torch.fx.Proxy)


def as_one_call(module: nn.Module, *arguments: Any, **keywords: Any) -> Any:
    """Records a call of ``module`` in the graph of the tracer that these arguments belong to, and returns its proxy.

    Raises:
        torch.fx.proxy.TraceError: if ``module`` itself is what is traced.
    """
    tracer = next(each.tracer for each in (*arguments, *keywords.values()) if is_symbolic(each))
    if tracer.root is module:
        raise torch.fx.proxy.TraceError(
            f"{type(module).__name__} cannot be traced by itself: it is one call in the graph of a model that holds it."
        )
    return tracer.create_proxy("call_module", tracer.path_of_module(module), arguments, keywords)
