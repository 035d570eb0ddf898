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
    # NumPy, unlike a GPU, warns when the square of a large number is infinite, and of infinity times 0.
    with np.errstate(over="ignore", invalid="ignore"):
        _kernel[(triton.cdiv(len(z), _BLOCK),)](z, value, derivative, len(z), half=half, block=_BLOCK)
    return value.double(), derivative.double()


def every_finite_number(dtype: torch.dtype) -> Tensor:
    """Every finite number of a half type, in float32."""
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    return numbers[numbers.isfinite()].float()


def exact(z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.double()
    phi = 0.5 * torch.special.erfc(-z / math.sqrt(2))
    density = (-0.5 * z * z).exp() / math.sqrt(2 * math.pi)
    return z * phi, phi + z * density


def rounding(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Half the distance between neighbouring numbers of the half type around x: the largest rounding error."""
    normal = x.abs().clamp(min=torch.finfo(dtype).smallest_normal)
    return normal.log2().floor().exp2() * torch.finfo(dtype).eps / 2


LARGEST_ERROR = pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.02), (torch.float16, 0.13)])
"""Largest error, in roundings to the half type; relative to the value it is 3e-5."""


@LARGEST_ERROR
def test_every_half_type_value_errs_far_less_than_its_rounding(dtype: torch.dtype, most: float) -> None:
    z = every_finite_number(dtype)
    expected, _ = exact(z)
    error = (computed(z, True)[0] - expected).abs()
    # Below -8 the kernel returns -8 Phi(-8) = -5e-15; bfloat16 has numbers between that and 0.
    inside = z >= -8
    assert (error / rounding(expected, dtype))[inside].max() < most
    assert error[~inside].max() < 6e-15


@LARGEST_ERROR
def test_every_half_type_derivative_errs_less_than_its_rounding(dtype: torch.dtype, most: float) -> None:
    z = every_finite_number(dtype)
    found, (_, expected) = computed(z, True)[1], exact(z)
    # Around the derivative's zero, z = -0.75, as much as a rounding of z would change it: its slope is below 0.8.
    allowed = rounding(expected, dtype) + 0.8 * rounding(z.double(), dtype) + 1e-15
    assert ((found - expected).abs() / allowed).max() < most


@pytest.mark.parametrize("half", [False, True])
def test_infinity_and_nan_are_kept(half: bool) -> None:
    value, derivative = computed(torch.tensor([torch.inf, torch.nan]), half)
    assert value[0] == torch.inf
    assert value[1].isnan()
    assert derivative[1].isnan()


def test_float32_agrees_with_the_exact_gelu() -> None:
    z = torch.linspace(-7, 7, 20001)
    value, derivative = computed(z, False)
    expected, slope = exact(z)
    assert (value - expected).abs().max() < 5e-7
    assert (derivative - slope).abs().max() < 5e-7
