"""Defines the library's own operators, ``torch.ops.exda``, directly at PyTorch's dispatcher, so that calls are cheap.

``torch.library.custom_op`` checks every output of every call, which takes longer than the call itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("exda", "FRAGMENT")
_COMPUTING: dict[OpOverload, Callable[..., Any]] = {}


def operator(name: str, schema: str | None = None) -> Callable[[Callable[..., Any]], OpOverload]:
    """Defines an operator by the function that computes it on any device.

    The function has to return new tensors, never views of its inputs. Where the operators of other modules need it, it
    is called ``compute`` in its module: they call this in place of the operator, since a call through the dispatcher
    costs time on the host. It need not check its arguments and is not differentiable.

    Args:
        name: name in ``torch.ops.exda``.
        schema: schema of arguments and outputs; by default it is inferred from the function's annotations.
    """

    def decorate(compute: Callable[..., Any]) -> OpOverload:
        found = schema or torch.library.infer_schema(compute, mutates_args=())
        _LIBRARY.define(f"{name}{found}", tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")
        defined: OpOverload = getattr(torch.ops.exda, name).default
        _COMPUTING[defined] = compute
        return defined

    return decorate


def computing(of: OpOverload) -> Callable[..., Any] | None:
    """Returns the function that computes this operator of ours; None for any other operator."""
    return _COMPUTING.get(of)


def fake(of: OpOverload) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the function that makes an operator's outputs for tracing: shapes, dtypes and strides, no values."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        torch.library.register_fake(of.name(), function, lib=_LIBRARY)
        return function

    return decorate


def differentiable(of: OpOverload, backward: Callable[..., Any], save: Callable[..., Any]) -> None:
    """Registers an operator's gradient: ``save(ctx, inputs, output)`` keeps what ``backward(ctx, *grads)`` needs."""
    torch.library.register_autograd(of.name(), backward, setup_context=save, lib=_LIBRARY)


def differentiable_no_more(of: OpOverload) -> None:
    """Makes an operator refuse to be differentiated: a gradient, or a step that is used without gradients only."""

    def refuse(ctx: Any, *grads: Any) -> None:
        raise RuntimeError(
            f"Trying to backward through {of} but no autograd formula was registered: the kernels' functions can be "
            "differentiated once; use the 'torch' backend for gradients of gradients"
        )

    torch.library.register_autograd(of.name(), refuse, lib=_LIBRARY)
