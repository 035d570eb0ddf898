from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from exda_primitives.ops.triton import gelu as module

_BLOCK = 4096
gelu, gelu_derivative = module.gelu, module.gelu_derivative


@triton.jit
def _kernel(z, value, derivative, n, half: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(z + i, mask=i < n, other=0.0)
    tl.store(value + i, gelu(x, half), mask=i < n)
    tl.store(derivative + i, gelu_derivative(x, half), mask=i < n)


def computed(z: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    value, derivative = torch.full_like(z, torch.nan), torch.full_like(z, torch.nan)
    # A GPU says nothing of the square of a large number, which is infinite, nor of infinity times 0.
    with np.errstate(over="ignore", invalid="ignore"):
        _kernel[(triton.cdiv(len(z), _BLOCK),)](z, value, derivative, len(z), half=half, block=_BLOCK)
    return value.double(), derivative.double()


def every(dtype: torch.dtype) -> Tensor:
    """All finite numbers of a half type, in float32."""
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    return numbers[numbers.isfinite()].float()


def exact(z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.double()
    phi = 0.5 * torch.special.erfc(-z / math.sqrt(2))
    density = (-0.5 * z * z).exp() / math.sqrt(2 * math.pi)
    return z * phi, phi + z * density


def rounding(x: Tensor, dtype: torch.dtype) -> Tensor:
    """By how much the half type's nearest number may be away."""
    normal = x.abs().clamp(min=torch.finfo(dtype).smallest_normal)
    return normal.log2().floor().exp2() * torch.finfo(dtype).eps / 2


MOST = pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float16, 0.13)])
"""Of a rounding to the half type; 3e-5 of the number itself."""


@MOST
def test_every_value_for_a_half_type_is_right_far_below_its_rounding(dtype: torch.dtype, most: float) -> None:
    z = every(dtype)
    expected, _ = exact(z)
    error = (computed(z, True)[0] - expected).abs()
    # bfloat16 has numbers for what is left beyond -8; 8 Phi(-8) is 5e-15.
    inside = z >= -8
    assert (error / rounding(expected, dtype))[inside].max() < most
    assert error[~inside].max() < 6e-15


@MOST
def test_every_derivative_for_a_half_type(dtype: torch.dtype, most: float) -> None:
    z = every(dtype)
    found, (_, expected) = computed(z, True)[1], exact(z)
    # Around its zero, -0.75, of what a rounding of z would change: the derivative's slope is below 0.8.
    allowed = rounding(expected, dtype) + 0.8 * rounding(z.double(), dtype) + 1e-15
    assert ((found - expected).abs() / allowed).max() < most


@pytest.mark.parametrize("half", [False, True])
def test_what_is_not_finite(half: bool) -> None:
    value, derivative = computed(torch.tensor([torch.inf, torch.nan]), half)
    assert value[0] == torch.inf
    assert value[1].isnan()
    assert derivative[1].isnan()


def test_float32_is_as_pytorch_has_it() -> None:
    z = torch.linspace(-7, 7, 20001)
    value, derivative = computed(z, False)
    expected, slope = exact(z)
    assert (value - expected).abs().max() < 5e-7
    assert (derivative - slope).abs().max() < 5e-7
