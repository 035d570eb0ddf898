from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.triton import tiles
from exda_primitives.ops.triton.gram import gram

from .agreement import TOLERANCE, poison, random
from .references import blocks, gram_reference
from .several import deviations, differentiate

SIZES = [
    # batch, heads, channels per head, tokens per head, pixels
    (2, 2, 5, 1, 77),
    (1, 1, 48, 1, 300),
    (2, 1, 20, 0, 1),
    (1, 2, 3, 17, 300),
    (1, 3, 1, 1, 31),
    (1, 1, 15, 1, 257),
    (1, 1, 140, 1, 70),
]
# Every size in float64, where a mistake shows most; in the other dtypes a size of one tile and one of several.
CASES = [(torch.float64, size) for size in SIZES]
CASES += [(dtype, SIZES[i]) for dtype in (torch.float32, torch.float16, torch.bfloat16) for i in (0, 6)]
# Bounds of the output: sums of products are float32 for half types, too.
SUMS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def inputs(
    batch: int, heads: int, c: int, tokens: int, pixels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """q and k as slices of one buffer, as in an attention, and token maps or None."""
    qkv = random(batch, 3 * heads * c, pixels, dtype=dtype)
    q, k, _ = qkv.chunk(3, 1)
    g = random(batch, heads * tokens, pixels, dtype=dtype, seed=1).abs() if tokens else None
    return q, k, g


def compared(tensors: Sequence[Tensor | None], heads: int) -> tuple[float, float]:
    # Each part by itself: the squared norms are larger than most products.
    return deviations(
        lambda *t: blocks(gram(*t, heads=heads)), lambda *t: blocks(gram_reference(*t, heads=heads)), tensors
    )


@pytest.mark.parametrize(("dtype", "size"), CASES, ids=str)
def test_output_and_gradients_agree_with_the_float64_reference(
    size: tuple[int, int, int, int, int], dtype: torch.dtype
) -> None:
    output, gradient = compared(inputs(*size, dtype=dtype), size[1])
    assert output < SUMS[dtype]
    assert gradient < TOLERANCE[dtype]


def test_the_reference_is_the_concatenation() -> None:
    q, k, g = inputs(2, 2, 3, 2, 7, torch.float64)
    assert g is not None
    rows = [torch.cat([x.unflatten(1, (2, 3)), g.unflatten(1, (2, 2))], 2) for x in (q, k)]
    found = blocks(gram_reference(q, k, g, 2))
    torch.testing.assert_close(found.products, torch.einsum("bhin,bhjn->bhij", *rows))
    torch.testing.assert_close(found.q_squares, torch.einsum("bhin,bhin->bhi", rows[0], rows[0]))
    torch.testing.assert_close(found.k_squares, torch.einsum("bhin,bhin->bhi", rows[1], rows[1]))


@pytest.mark.parametrize("multiprocessors", [1, 200])
def test_pixels_split_over_programs_agree(multiprocessors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_multiprocessors", lambda device: multiprocessors)
    assert max(compared(inputs(1, 2, 3, 1, 1000, torch.float64), 2)) < 1e-12


def channels_last(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize(
    "laid_out",
    [channels_last, lambda x: x[:, :, ::2], lambda x: x.expand(3, -1, -1), lambda x: x[:, :, 1:]],
    ids=["channels last", "every other pixel", "one image for all", "an odd start"],
)
def test_other_strides_agree(laid_out: object) -> None:
    tensors = [laid_out(x) for x in inputs(1, 2, 4, 3, 38, torch.float64)]  # type: ignore[operator]
    assert max(compared(tensors, 2)) < 1e-12


def test_sums_that_overflow_float16_agree() -> None:
    # 300 pixels of about 200 squared sum to 1.2e7; float16's largest number is 65504.
    q, k, _ = (200 + x for x in inputs(1, 1, 4, 1, 300, torch.float64))
    output, gradient = compared([q.half(), k.half(), None], 1)
    assert output < 1e-5
    assert gradient < TOLERANCE[torch.float16]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)])
@pytest.mark.parametrize(("upstream", "size"), [(1e-8, 1e4), (1e6, 1e-3)])
def test_upstream_gradients_outside_float16_range_agree(
    upstream: float, size: float, dtype: torch.dtype, bound: float
) -> None:
    q, k, g = inputs(1, 1, 4, 1, 50, torch.float64)
    assert g is not None
    leaves = [(size * x).to(dtype).requires_grad_() for x in (q, k, g)]
    weights = upstream * random(1, 1, 5, 5, dtype=torch.float32)
    found = torch.autograd.grad(blocks(gram(*leaves, 1)).products, leaves, weights)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    expected = torch.autograd.grad(blocks(gram_reference(*wide, 1)).products, wide, weights.double())
    for f, e in zip(found, expected, strict=True):
        assert (f.double() - e).abs().max() < bound * e.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_that_cancel_are_as_exact_as_others(dtype: torch.dtype) -> None:
    # Flat maps: all rows of q and k are nearly parallel, and only the small part of the cosines' gradient that is
    # perpendicular to q remains.
    q, k = ((1 + 0.01 * random(1, 6, 64, seed=seed)).to(dtype) for seed in (1, 2))

    def cosines(function: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        found = blocks(function(*maps, None, 1))
        return found.products / (found.q_squares[..., :, None] * found.k_squares[..., None, :]).sqrt()

    upstream = random(1, 1, 6, 6)
    leaves = [x.detach().requires_grad_() for x in (q, k)]
    found = torch.autograd.grad(cosines(gram, *leaves), leaves, upstream.float())
    wide = [x.detach().double().requires_grad_() for x in (q, k)]
    expected = torch.autograd.grad(cosines(gram_reference, *wide), wide, upstream)
    for f, e in zip(found, expected, strict=True):
        # Measured: 4e-4 and 6e-3, the rounding of the result; with weights rounded to the half type, 6e-3 and 4e-2.
        assert (f.double() - e).abs().max() < TOLERANCE[dtype] * e.abs().max()


def test_two_runs_agree_bit_for_bit() -> None:
    tensors = inputs(1, 2, 5, 1, 300, torch.float32)
    (outputs, gradients), again = (differentiate(partial(gram, heads=2), tensors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip([*outputs, *gradients], [*again[0], *again[1]], strict=True))


def test_opcheck() -> None:
    q, k, g = (None if x is None else x.requires_grad_() for x in inputs(1, 2, 3, 2, 10, torch.float32))
    torch.library.opcheck(torch.ops.exda.gram.default, (q, k, g, 2))
    grad = random(1, 2, 5, 3, dtype=torch.float32)
    torch.library.opcheck(torch.ops.exda.gram_backward.default, (grad, q.detach(), k.detach(), None, 2))


def test_compiled_with_gradients() -> None:
    def loss(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
        found = blocks(gram(q, k, g, 2))
        return found.products.square().sum() + (found.q_squares * found.k_squares).sum()

    leaves = [x.detach().requires_grad_() for x in inputs(1, 2, 3, 1, 20, torch.float32) if x is not None]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves), leaves)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)


Q = torch.zeros(2, 6, 5)


@pytest.mark.parametrize(
    ("q", "k", "g", "heads", "message"),
    [
        (Q[:0], Q[:0], None, 2, "none of them 0"),
        (Q, Q, None, 4, "a multiple of heads"),
        (Q[0], Q[0], None, 2, r"expected \(B, C, N\)"),
        (Q, Q[:, :4], None, 2, "expected q's"),
        (Q, Q.half(), None, 2, "expected q's"),
        (Q, Q, torch.zeros(2, 3, 5), 2, r"expected \(2, 2\*K, 5\)"),
        (Q, Q, torch.zeros(2, 2, 4), 2, r"expected \(2, 2\*K, 5\)"),
        (Q, Q, torch.zeros(2, 2, 5).double(), 2, "of q's torch.float32"),
        (Q.int(), Q.int(), None, 2, "the dtype is torch.int32"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(
    q: Tensor, k: Tensor, g: Tensor | None, heads: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        gram(q, k, g, heads)
