from __future__ import annotations

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.precision import unit_divisor
from exda_primitives.ops.triton.compose import compose
from exda_primitives.ops.triton.fold import (
    TokenMixing,
    fold,
)

from .agreement import poison, random
from .references import Compose, blocks, compose_reference, fold_reference, gram_reference, packed
from .several import deviations, differentiate

# Measured: 1.3e-6 for float32, in the gradients of the squared norms; 4e-16 for float64.
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5}
SIZES = [
    # batch, heads, channels per head, tokens per head, rows of the left matrix, reinjection of the tokens' rows
    (2, 2, 5, 1, 7, "mean"),
    (1, 1, 48, 1, 48, "mean"),
    (2, 1, 20, 0, 3, "mean"),
    (1, 2, 3, 17, 6, "mean"),
    (2, 2, 18, 18, 40, "channelwise"),
    (1, 1, 1, 1, 1, "channelwise"),
    (1, 1, 130, 2, 33, "mean"),
]


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def maps(batch: int, heads: int, c: int, tokens: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """q and k, correlated as in an attention, each with a row of zeros (if c > 1); token maps or None."""
    q = random(batch, heads * c, 40)
    k = q + random(batch, heads * c, 40, seed=1)
    if c > 1:
        q[0, 1] = k[0, 0] = 0
    return q, k, random(batch, heads * tokens, 40, seed=2).abs() if tokens else None


def small_parameters(heads: int, c: int, rows: int) -> list[Tensor]:
    """Temperature, left matrix, gate and alpha."""
    return [
        1 + random(heads, 1, 1, seed=3).abs(),
        random(rows, heads * c, seed=4),
        random(heads, 1, 1, seed=5).sigmoid(),
        random(heads, 1, 1, seed=6),
    ]


def fold_tensors(function: object, tensors: tuple[Tensor, ...], reinject: str) -> tuple[Tensor, Tensor | None]:
    products, q_squares, k_squares, temperature, left, *rest = tensors
    tokens = TokenMixing(*rest, 3, reinject) if rest else None  # type: ignore[arg-type, misc]
    return function(packed(products, q_squares, k_squares), temperature, left, tokens)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("batch", "heads", "c", "tokens", "rows", "reinject"), SIZES)
def test_output_and_gradients_agree_with_the_float64_reference(
    batch: int, heads: int, c: int, tokens: int, rows: int, reinject: str, dtype: torch.dtype
) -> None:
    q, k, g = maps(batch, heads, c, tokens)
    tensors = [*blocks(gram_reference(q, k, g, heads)), *small_parameters(heads, c, rows)][: 7 if tokens else 5]
    found = deviations(
        lambda *t: fold_tensors(fold, t, reinject),
        lambda *t: fold_tensors(fold_reference, t, reinject),
        [t.to(dtype) for t in tensors],
    )
    assert max(found) < BOUNDS[dtype]


@pytest.mark.parametrize(("batch", "heads", "c", "tokens", "rows", "reinject"), SIZES)
def test_the_reference_is_the_printed_formula(
    batch: int, heads: int, c: int, tokens: int, rows: int, reinject: str
) -> None:
    q, k, g = maps(batch, heads, c, tokens)
    temperature, left, gate, alpha = small_parameters(heads, c, rows)
    gram = gram_reference(q, k, g, heads)
    mixing = TokenMixing(gate, alpha, 3, reinject) if tokens else None  # type: ignore[arg-type]
    found = fold_reference(gram, temperature, left, mixing)

    q, k = (x.unflatten(1, (heads, c)) for x in (q, k))
    if g is not None:
        q, k = (torch.cat([x, g.unflatten(1, (heads, tokens))], 2) for x in (q, k))
    logits = temperature * ((q / unit_divisor(q)) @ (k / unit_divisor(k)).transpose(-2, -1))
    local = logits[:, :, :c, :c].softmax(-1)
    if tokens:
        whole = logits.softmax(-1)
        mass = whole[:, :, :c, c:].sum(-1, keepdim=True)
        own = whole[:, :, c:].mean(2, keepdim=True) if reinject == "mean" else whole[:, :, c:]
        local = torch.cat([(1 - gate * mass) * local, gate * whole[:, :, :c, c:]], -1) + alpha * own
    expected = [
        torch.cat([left[:, h * c : (h + 1) * c] @ local[:, h, :, columns] for h in range(heads)], -1)
        for columns in (slice(c), slice(c, None))
    ]
    torch.testing.assert_close(found[0], expected[0])
    if tokens:
        torch.testing.assert_close(found[1], expected[1] / 3)
    else:
        assert found[1] is None


def test_gate_and_alpha_of_zero_give_the_host() -> None:
    q, k, g = maps(2, 2, 4, 1)
    temperature, left, gate, alpha = small_parameters(2, 4, 8)
    zero = TokenMixing(torch.zeros_like(gate), torch.zeros_like(alpha))
    with_tokens, onto_tokens = fold(gram_reference(q, k, g, 2), temperature, left, zero)
    alone, _ = fold(gram_reference(q, k, None, 2), temperature, left)
    torch.testing.assert_close(with_tokens, alone)
    assert onto_tokens is not None
    assert not onto_tokens.any()


def test_maps_of_zeros_have_finite_gradients() -> None:
    gram = blocks(gram_reference(torch.zeros(1, 4, 9), torch.zeros(1, 4, 9), torch.zeros(1, 2, 9), 2))
    tensors = [t.float() for t in (*gram, *small_parameters(2, 2, 4))]
    outputs, gradients = differentiate(lambda *t: fold_tensors(fold, t, "mean"), tensors)
    assert all(t.isfinite().all() for t in [*outputs, *gradients])
    assert max(t.abs().max().item() for t in gradients) < 1e3


def test_large_logits_agree() -> None:
    q, k, g = maps(1, 1, 4, 1)
    _, left, gate, alpha = small_parameters(1, 4, 4)
    tensors = [*blocks(gram_reference(q, k, g, 1)), torch.full((1, 1, 1), 1e3), left, gate, alpha]
    outputs, _ = differentiate(lambda *t: fold_tensors(fold, t, "mean"), [t.float() for t in tensors])
    expected, _ = differentiate(lambda *t: fold_tensors(fold_reference, t, "mean"), [t.double() for t in tensors])
    for f, e in zip(outputs, expected, strict=True):
        # float32 holds a logit of 1000 only to about 1e-4: its own rounding, and 1000 times that of the cosine.
        torch.testing.assert_close(f, e.float(), rtol=1e-3, atol=1e-3)


def test_blocks_and_parameters_of_other_layouts_and_dtypes() -> None:
    q, k, g = maps(2, 2, 3, 1)
    gram = gram_reference(q, k, g, 2).transpose(-2, -1).contiguous().transpose(-2, -1).float()
    temperature, left, gate, alpha = (t.bfloat16() for t in small_parameters(2, 3, 5))
    left = left.T.contiguous().T
    tokens = TokenMixing(gate, alpha)
    found = fold(gram, temperature, left, tokens)
    for f, e in zip(found, fold_reference(gram, temperature, left, tokens), strict=True):
        assert f is not None
        assert f.dtype is torch.float32
        torch.testing.assert_close(f, e)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(2, 5, 5, 5), (1, 48, 70, 33), (3, 1, 1, 1)])
def test_compose_agrees_with_the_float64_reference(
    size: tuple[int, int, int, int], dtype: torch.dtype, bias: bool
) -> None:
    batch, rows, channels, columns = size
    tensors = [
        random(batch, rows, channels),
        random(channels, columns, seed=1),
        random(channels, seed=2),
        random(rows, seed=3) if bias else None,
    ]
    tensors = [None if t is None else t.to(dtype) for t in tensors]
    assert max(deviations(Compose.apply, compose_reference, tensors)) < BOUNDS[dtype]  # type: ignore[arg-type]


def test_compose_with_a_half_precision_convolution() -> None:
    matrix = random(2, 5, 6, dtype=torch.float32)
    weight, weight_bias, bias = (random(*s, dtype=torch.bfloat16) for s in ((6, 7), (6,), (5,)))
    found = compose(matrix, weight.T.contiguous().T, weight_bias, bias)
    for f, e in zip(found, compose_reference(matrix, weight, weight_bias, bias), strict=True):
        torch.testing.assert_close(f, e)


# Without "test_aot_dispatch_dynamic": test_compiled_with_gradients covers it.
CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


def test_opcheck() -> None:
    gram = gram_reference(*maps(2, 2, 3, 2), 2).float().requires_grad_()
    temperature, left, gate, alpha = (t.float().requires_grad_() for t in small_parameters(2, 3, 5))
    torch.library.opcheck(
        torch.ops.exda.fold.default, (gram, temperature, left, gate, alpha, 2, False), test_utils=CHECKS
    )


def test_compiled_with_gradients() -> None:
    gram = blocks(gram_reference(*maps(1, 2, 3, 3), 2))
    leaves = [t.float().requires_grad_() for t in (*gram, *small_parameters(2, 3, 5))]

    def loss(*tensors: Tensor) -> Tensor:
        matrix, onto_tokens = fold_tensors(fold, tensors, "channelwise")
        assert onto_tokens is not None
        return matrix.square().sum() + onto_tokens.square().sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves), leaves)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)


GRAM = torch.zeros(2, 2, 6, 4)
TALL = torch.zeros(()).expand(1, 2, 4102, 4100)
ONE = torch.zeros(2, 1, 1)


@pytest.mark.parametrize(
    ("gram", "temperature", "left", "tokens", "message"),
    [
        (GRAM, ONE, torch.zeros(5, 7), None, r"expected \(O, h\*c\)"),
        (GRAM, ONE, torch.zeros(5, 10), None, "c at most 4"),
        (GRAM, ONE, torch.zeros(0, 8), None, "no dimension 0"),
        (GRAM, ONE, torch.zeros(5, 6), None, "gate and alpha None without tokens"),
        (GRAM, ONE, torch.zeros(5, 8), TokenMixing(ONE, ONE), "gate and alpha None without tokens"),
        (GRAM, ONE[:1], torch.zeros(5, 8), None, "expected 2 elements each"),
        (GRAM, ONE, torch.zeros(5, 6), TokenMixing(ONE, ONE, 1, "channelwise"), "expected as many as channels, 3"),
        (torch.zeros(2, 2, 4, 4), ONE, torch.zeros(5, 8), None, r"expected \(B, h, m\+2, m\)"),
        (GRAM.half(), ONE, torch.zeros(5, 8), None, "expected float32"),
        (TALL, ONE, torch.zeros(5, 8200), None, "4100 channels and tokens; expected at most 4096"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(
    gram: Tensor, temperature: Tensor, left: Tensor, tokens: TokenMixing | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fold(gram, temperature, left, tokens)


@pytest.mark.parametrize(
    ("weight", "weight_bias", "bias"),
    [
        (torch.zeros(3, 5), torch.zeros(4), None),
        (torch.zeros(4, 5), torch.zeros(5), None),
        (torch.zeros(4, 5), torch.zeros(4), torch.zeros(5)),
    ],
)
def test_compose_refuses_other_shapes(weight: Tensor, weight_bias: Tensor, bias: Tensor | None) -> None:
    with pytest.raises(InputError, match=r"expected \(C, J\), \(C,\) and \(O,\) or None"):
        compose(torch.zeros(2, 3, 4), weight, weight_bias, bias)
