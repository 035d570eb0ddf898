"""Checks of arguments and inputs that all primitives share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ConfigError, InputError
from ..ops.precision import product_dtype


def check_heads(owner: str, dim: int, num_heads: int) -> None:
    """Raises ConfigError unless ``dim`` and ``num_heads`` are positive and the heads share the channels evenly."""
    if dim < 1 or num_heads < 1 or dim % num_heads:
        raise ConfigError(
            f"{owner}: dim={dim} channels cannot be split evenly over num_heads={num_heads}; "
            f"expected both positive and dim a multiple of num_heads."
        )


def map_problem(name: str, x: Tensor, dim: int, *, channels_last: bool = False) -> str | None:
    """Returns why ``x`` is not a non-empty floating-point map (B, dim, H, W), or (B, H, W, dim); None if it is."""
    advice = "add the batch axis with x[None]" if x.ndim == 3 else "fold the extra axes into the batch"
    layout, axis = (f"map (B, H, W, {dim})", 3) if channels_last else (f"map (B, {dim}, H, W)", 1)
    return _problem(name, x, layout, 4, advice, axis, dim)


def tokens_problem(name: str, x: Tensor, dim: int) -> str | None:
    """Returns why ``x`` is not a non-empty floating-point sequence (B, N, dim); None if it is."""
    advice = "add the batch axis with x[None]" if x.ndim == 2 else "make tokens of a map with x.flatten(2).mT"
    return _problem(name, x, f"sequence (B, N, {dim})", 3, advice, 2, dim)


def _problem(name: str, x: Tensor, layout: str, ndim: int, advice: str, axis: int, dim: int) -> str | None:
    expected = f"expected a floating-point {layout}"
    if x.ndim != ndim:
        return f"{expected}, got {name} with {x.ndim} dimensions, {tuple(x.shape)}; {advice}."
    if x.shape[axis] != dim:
        return f"{expected}, got {name} of shape {tuple(x.shape)}: axis {axis} has to be {dim}."
    if not torch.is_floating_point(x):
        return f"{expected}, got {name} of {x.dtype}; convert it, e.g. with x.float() / 255."
    if 0 in x.shape:
        return f"{expected} with at least one element, got {name} of shape {tuple(x.shape)}."
    return None


def dtype_problem(name: str, x: Tensor, parameters: Mapping[str, Tensor]) -> str | None:
    """Returns why ``x`` and ``parameters`` cannot be multiplied for their dtypes; None if they can.

    Under autocast they mostly can, since it casts both.
    """
    wanted = product_dtype(x)
    found = [f"{key} is {each.dtype}" for key, each in parameters.items() if product_dtype(each) is not wanted]
    if not found:
        return None
    return (
        f"{name} is {x.dtype}, {', '.join(found)}: outside of autocast they have to be of one dtype. Bring the model "
        f"to one, e.g. with model.to({x.dtype}), or compute under torch.autocast({x.device.type!r})."
    )


def check_map(owner: object, name: str, x: Tensor, dim: int) -> None:
    """Raises InputError, in the name of ``owner``, if ``map_problem`` finds a problem."""
    if problem := map_problem(name, x, dim):
        raise InputError(f"{owner}: {problem}")


def check_dtypes(owner: object, name: str, x: Tensor, parameters: Mapping[str, Tensor]) -> None:
    """Raises InputError, in the name of ``owner``, if ``dtype_problem`` finds a problem."""
    if problem := dtype_problem(name, x, parameters):
        raise InputError(f"{owner}: {problem}")
