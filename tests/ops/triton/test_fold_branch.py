from __future__ import annotations

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.triton import fold_branch as module
from exda_primitives.ops.triton.fold import TokenMixing
from exda_primitives.ops.triton.fold_branch import Matrices, fold_branch

from .agreement import poison, random
from .references import fold_branch_reference, gram_reference
from .several import deviation

BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def inputs(
    heads: int, c: int, tokens: int, rows: int, columns: int, dtype: torch.dtype = torch.float64
) -> list[Tensor | None]:
    """Gram blocks, temperature, left matrix, the branch's weight and bias, the projection's bias, gate and alpha."""
    q = random(2, heads * c, 30)
    k = q + random(2, heads * c, 30, seed=1)
    g = random(2, heads * tokens, 30, seed=2).abs() if tokens else None
    small: list[Tensor | None] = [
        1 + random(heads, 1, 1, seed=3).abs(),
        random(rows, heads * c, seed=4),
        random(heads * c, columns, seed=5),
        random(heads * c, seed=6),
        random(rows, seed=7),
        random(heads, 1, 1, seed=8).sigmoid() if tokens else None,
        random(heads, 1, 1, seed=9) if tokens else None,
    ]
    return [None if t is None else t.to(dtype) for t in (gram_reference(q, k, g, heads), *small)]


def called(function: object, tensors: list[Tensor | None] | tuple[Tensor, ...], reinject: str = "mean") -> Matrices:
    gram, temperature, left, weight, weight_bias, bias, gate, alpha = tensors
    tokens = None if gate is None else TokenMixing(gate, alpha, 3, reinject)  # type: ignore[arg-type]
    return function(gram, temperature, left, tokens, weight, weight_bias, bias)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("channels", [128, 0], ids=["one launch", "two launches"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("size", "reinject"),
    [
        # heads, channels per head, tokens per head, rows of the left matrix, columns of the branch's weight
        ((2, 5, 1, 7, 10), "mean"),
        ((1, 48, 1, 48, 48), "mean"),
        ((3, 6, 0, 3, 70), "mean"),
        ((2, 18, 18, 40, 33), "channelwise"),
        ((1, 1, 1, 1, 1), "mean"),
    ],
)
def test_output_agrees_with_the_float64_reference(
    size: tuple[int, int, int, int, int],
    reinject: str,
    dtype: torch.dtype,
    channels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_CHANNELS", channels)
    found = deviation(
        lambda *t: called(fold_branch, t, reinject),
        lambda *t: called(fold_branch_reference, t, reinject),
        inputs(*size, dtype=dtype),
    )
    assert found < BOUNDS[dtype]


def test_without_a_bias_of_the_projection() -> None:
    tensors = inputs(2, 4, 1, 5, 6)
    tensors[5] = None
    found = deviation(lambda *t: called(fold_branch, t), lambda *t: called(fold_branch_reference, t), tensors)
    assert found < 1e-12


def test_parameters_of_other_layouts_and_dtypes() -> None:
    gram, parameters = inputs(2, 4, 1, 5, 6, torch.float32)[:1], inputs(2, 4, 1, 5, 6, torch.bfloat16)[1:]
    left, weight = parameters[1], parameters[2]
    assert left is not None
    assert weight is not None
    parameters[1:3] = left.T.contiguous().T, weight.T.contiguous().T
    found, expected = (called(f, [*gram, *parameters]) for f in (fold_branch, fold_branch_reference))
    for f, e in zip(found, expected, strict=True):
        assert f is not None
        assert f.dtype is torch.float32
        torch.testing.assert_close(f, e)


@pytest.mark.parametrize("channels", [128, 0], ids=["one launch", "two launches"])
@pytest.mark.parametrize(("wrong", "shape"), [(3, (5, 6)), (4, (7,)), (5, (4,))])
def test_wrong_shapes_are_refused(
    wrong: int, shape: tuple[int, ...], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CHANNELS", channels)
    tensors = inputs(2, 4, 1, 5, 6)
    tensors[wrong] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(InputError, match=r"expected \(C, J\), \(C,\) and \(O,\) or None"):
        called(fold_branch, tensors)
