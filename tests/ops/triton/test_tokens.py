from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops import tokens as printed
from exda_primitives.ops.triton import tokens
from exda_primitives.ops.triton.tokens import token_maps

from .agreement import TOLERANCE, disagreement, poison, random
from .references import token_maps_reference

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# Every size in float64, where a mistake shows most; one in each other dtype.
CASES = [(torch.float64, shape, s) for shape, s in (((2, 2, 9, 13), 2), ((1, 1, 33, 34), 2), ((1, 1, 7, 5), 3))]
CASES += [(dtype, (1, 2, 9, 13), 2) for dtype in DTYPES[1:]]


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def reference(phi: Tensor, stride: int) -> Tensor:
    maps = printed.softmax_over_space(printed.pool(phi, stride))
    return printed.upsample(printed.unit_mean(maps, "mean")[0], phi.shape[2:])


def compared(phi: Tensor, stride: int, upstream: Tensor | None = None) -> float:
    return disagreement(partial(token_maps, stride=stride), partial(reference, stride=stride), phi, upstream=upstream)


@pytest.mark.parametrize(("dtype", "shape", "stride"), CASES, ids=str)
def test_output_and_gradient_agree_with_the_float64_reference(
    dtype: torch.dtype, shape: tuple[int, ...], stride: int
) -> None:
    assert compared(2 * random(*shape, dtype=dtype) + 3, stride) < TOLERANCE[dtype]


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), stride=st.integers(1, 3), seed=st.integers(0, 99))
def test_any_size_and_stride_agree(height: int, width: int, stride: int, seed: int) -> None:
    assert compared(3 * random(1, 1, height, width, seed=seed), stride) < 1e-12


def test_stride_larger_than_the_map_agrees() -> None:
    assert compared(random(1, 1, 3, 2), 5) < 1e-12


@pytest.mark.parametrize(
    ("size", "stride", "dtype"),
    [((11, 13), 1, torch.float64), ((16, 17), 2, torch.bfloat16), ((8, 8), 1, torch.float64)],
)
def test_many_chunks_of_many_blocks_agree(
    size: tuple[int, int], stride: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_BLOCK", 16)
    monkeypatch.setattr(tokens, "_MOST_CHUNKS", 4)
    assert compared(random(1, 1, *size, dtype=dtype), stride) < TOLERANCE[dtype]


@pytest.mark.parametrize("layout", ["channels", "channels_last", "crop", "transposed"])
def test_strided_logits_agree(layout: str) -> None:
    phi = random(2, 2, 5, 7)
    if layout == "channels":
        phi = random(2, 9, 5, 7)[:, 6:8]
    elif layout == "channels_last":
        phi = phi.contiguous(memory_format=torch.channels_last)
    elif layout == "crop":
        phi = torch.nn.functional.pad(phi, (2, 1, 1, 3), value=7.0)[:, :, 1:-3, 2:-1]
    else:
        phi = phi.mT
    upstream = random(phi.shape[3], 2, 2, phi.shape[2]).permute(2, 1, 3, 0)
    assert compared(phi, 2, upstream) < 1e-12


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 5e37), (torch.float16, 6e4), (torch.bfloat16, 5e37)])
def test_large_logits_do_not_overflow(dtype: torch.dtype, size: float) -> None:
    phi = torch.full((1, 2, 6, 8), -size, dtype=dtype)
    phi[0, 0, 2:4, 4:6] = size
    phi[0, 1] = size
    phi.requires_grad_()
    maps = token_maps(phi, 2)
    assert maps.isfinite().all()
    # One map has all its mass in one of 12 cells, whose value is therefore 12; upsampled by 2, its pixels take 0.75 of
    # it in either direction. The other map is uniform.
    assert maps[0, 0].max() == torch.tensor(12 * 0.75**2).to(dtype)
    assert torch.equal(maps[0, 1], torch.ones(6, 8, dtype=dtype))
    assert torch.autograd.grad(maps.sum(), phi)[0].isfinite().all()


def test_logits_of_minus_infinity_have_no_mass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_BLOCK", 4)
    phi = random(1, 1, 4, 4)
    phi[..., :3, :] = -torch.inf
    torch.testing.assert_close(token_maps(phi, 1), reference(phi, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_constant_logits_give_uniform_maps(stride: int, dtype: torch.dtype) -> None:
    maps = token_maps(torch.full((1, 1, 7, 10), -3.25, dtype=dtype), stride)
    torch.testing.assert_close(maps, torch.ones_like(maps))


def test_maps_are_non_negative_and_have_mean_one() -> None:
    maps = token_maps(4 * random(2, 3, 9, 11), 1)
    assert (maps >= 0).all()
    torch.testing.assert_close(maps.mean((2, 3)), torch.ones(2, 3, dtype=maps.dtype), rtol=1e-12, atol=0)


def test_weights_are_exact_on_wide_maps() -> None:
    phi = random(1, 1, 1, 5003, dtype=torch.float32)
    found, expected = token_maps(phi, 2), reference(phi.double(), 2)
    # A position computed in float32, and with it the weight, would be off by up to 5003 / 2 * 2^-24 = 1.5e-4.
    assert ((found - expected).abs() / expected).max() < 2e-6


def test_token_maps_reference_agrees() -> None:
    phi = random(2, 2, 7, 9)
    torch.testing.assert_close(token_maps_reference(phi, 2), reference(phi, 2), rtol=1e-12, atol=1e-12)
    assert token_maps_reference(phi.bfloat16(), 2).dtype is torch.bfloat16


def test_two_runs_agree_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_BLOCK", 32)
    phi = random(1, 1, 11, 13, dtype=torch.float32).requires_grad_()
    runs = [torch.autograd.grad(token_maps(phi, 2).square().sum(), phi)[0] for _ in range(2)]
    assert torch.equal(*runs)


def test_operator_passes_opcheck() -> None:
    torch.library.opcheck(tokens._token_maps, (random(1, 2, 5, 4, dtype=torch.float32).requires_grad_(), 2))


def test_compiles_without_a_graph_break() -> None:
    phi = random(1, 2, 5, 4, dtype=torch.float32).requires_grad_()
    compiled = torch.compile(partial(token_maps, stride=2), fullgraph=True, backend="aot_eager")
    found, expected = compiled(phi), token_maps(phi, 2)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(y.square().sum(), phi)[0] for y in (found, expected)))


@pytest.mark.parametrize(
    ("phi", "stride", "message"),
    [
        (torch.zeros(2, 3, 4), 2, r"phi is \(2, 3, 4\); the kernel takes \(B, M, H, W\)"),
        (torch.zeros(1, 0, 4, 5), 2, "none of them 0"),
        (torch.zeros(1, 1, 1, 1).expand(1, 1, 1, 40000), 2, "at most 32767 pixels a side"),
        (torch.zeros(1, 1, 4, 5), 0, "the stride is 0; it has to be at least 1"),
        (torch.zeros(1, 1, 4, 5, dtype=torch.int32), 2, "the dtype is torch.int32"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(phi: Tensor, stride: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        token_maps(phi, stride)
