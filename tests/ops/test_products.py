"""Products of small matrices and maps, and Gram blocks over many pixels: float32 against float64."""

import pytest
import torch
from torch import Tensor

from exda_primitives.ops.torch.gram import Gram, gram
from exda_primitives.ops.torch.products import add_product, as_convolution, product

# (H, W): enough multiplications for a convolution to be faster, and too few.
SIZES = {"convolution": (48, 96), "matrix product": (5, 7)}


def made_factors(size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices, maps and shifts of two images; the maps are a non-contiguous chunk of larger ones."""
    generator = torch.Generator().manual_seed(0)
    matrices, shift = torch.randn(2, 40, 48, generator=generator), torch.randn(2, 40, generator=generator)
    maps = torch.randn(2, 3 * 48, *size, generator=generator).chunk(3, dim=1)[1]
    return tuple(each.to(dtype).requires_grad_() for each in (matrices, maps, shift))


def outputs(matrices: Tensor, x: Tensor, shift: Tensor) -> list[Tensor]:
    """A product, the sum after another is added to it, and the gradients of matrices, maps and shifts."""
    out = product(matrices, x, shift)
    total = add_product(out.clone(), matrices.square(), x)
    gradients = torch.autograd.grad((total * torch.linspace(0, 1, out.shape[-1])).sum(), (matrices, x, shift))
    return [out.detach(), total.detach(), *gradients]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_products_and_gradients_agree_with_float64(size: tuple[int, int]) -> None:
    factors = made_factors(size, torch.float32)
    assert as_convolution(*factors[:2]) is (size == SIZES["convolution"])
    exact = outputs(*made_factors(size, torch.float64))
    for ours, theirs in zip(outputs(*factors), exact, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_float64_uses_no_convolution() -> None:
    assert not as_convolution(*made_factors(SIZES["convolution"], torch.float64)[:2])


@pytest.mark.parametrize("recorded", [False, True])
def test_gram_blocks_of_tokens_round_no_more_than_those_of_channels(recorded: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 16, 65536, generator=generator) + 0.3 for _ in range(2))
    g = 2 * torch.rand(1, 1, 1, 65536, generator=generator)
    exact = Gram(*(each.double() for each in gram(q.double(), k.double(), g.double())))
    found = gram(q.requires_grad_(recorded), k, g)

    def error(name: str) -> float:
        ours, theirs = getattr(found, name).detach().double(), getattr(exact, name)
        return float(((ours - theirs) / theirs).square().mean().sqrt())

    of_channels = error("qk")
    # Measured: at most 0.5 times as much; without strips, in one sum over all pixels, 2 to 3 times as much.
    assert max(error(name) for name in ("qg", "gk", "gg")) < of_channels
