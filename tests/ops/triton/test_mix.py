from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.triton import tiles
from exda_primitives.ops.triton.mix import mix

from .agreement import TOLERANCE, poison, random
from .references import mix_reference
from .several import deviations, differentiate

SIZES = [
    # batch, rows of the matrices, channels of the maps, pixels
    (1, 48, (48, 48, 1), 150),
    (1, 7, (8, 9, 40), 130),
    (2, 5, (5, 5, 2), 77),
    (2, 20, (17,), 1),
    (1, 140, (3, 130), 70),
    (1, 1, (1, 1, 1), 1),
]
# Every size in float64, where a mistake shows most; in the other dtypes two sizes with many channels and few.
CASES = [(torch.float64, *size) for size in SIZES]
CASES += [(dtype, *size) for dtype in (torch.float32, torch.float16, torch.bfloat16) for size in SIZES[:2]]


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def inputs(
    batch: int, rows: int, channels: Sequence[int], pixels: int, dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Matrices, maps (slices of larger buffers), shift, residual; matrices and shift in the accumulation dtype."""
    small = torch.float64 if dtype is torch.float64 else torch.float32
    matrices = [random(batch, rows, c, dtype=small, seed=i) / c**0.5 for i, c in enumerate(channels)]
    maps = [random(batch, c + 2, pixels, dtype=dtype, seed=5 + i)[:, 1:-1] for i, c in enumerate(channels)]
    return matrices, maps, random(batch, rows, dtype=small, seed=3), random(batch, rows, pixels, dtype=dtype, seed=4)


def compared(
    matrices: Sequence[Tensor], maps: Sequence[Tensor], shift: Tensor | None, residual: Tensor | None
) -> tuple[float, float]:
    pairs = len(maps)

    def of(function: object) -> object:
        return lambda *t: (function(t[:pairs], t[pairs:-2], t[-2], t[-1]),)  # type: ignore[operator]

    return deviations(of(mix), of(mix_reference), [*matrices, *maps, shift, residual])  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "batch", "rows", "channels", "pixels"), CASES, ids=str)
def test_output_and_gradients_agree_with_the_float64_reference(
    dtype: torch.dtype, batch: int, rows: int, channels: tuple[int, ...], pixels: int
) -> None:
    # Twice the tolerance: matrices and maps are each rounded once.
    assert max(compared(*inputs(batch, rows, channels, pixels, dtype))) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_without_shift_or_residual(shift: bool, residual: bool) -> None:
    matrices, maps, s, r = inputs(2, 6, (6, 1), 50, torch.float64)
    assert max(compared(matrices, maps, s if shift else None, r if residual else None)) < 1e-12


def test_the_reference_is_the_sum_of_products() -> None:
    (a, b), (x, y), shift, residual = inputs(2, 3, (4, 2), 5, torch.float64)
    rows = torch.cat([a, b, shift[..., None]], 2) @ torch.cat([x, y, torch.ones(2, 1, 5)], 1)
    torch.testing.assert_close(mix_reference([a, b], [x, y], shift, residual), rows + residual)


@pytest.mark.parametrize("multiprocessors", [1, 200])
def test_pixels_split_over_programs_agree(multiprocessors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_multiprocessors", lambda device: multiprocessors)
    assert max(compared(*inputs(1, 3, (4, 1), 1000, torch.float64))) < 1e-12


def test_other_strides_agree() -> None:
    """x is channels last; y, the first matrix and the shift are expanded, the second is transposed; z skips pixels."""
    (a, b, c), (x, y, z), shift, residual = inputs(2, 6, (6, 5, 2), 36, torch.float64)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    y, a, shift = (t[:1].expand(2, *t.shape[1:]) for t in (y, a, shift))
    b = b.transpose(1, 2).contiguous().transpose(1, 2)
    z = torch.stack([z, z], -1).flatten(2)[:, :, ::2]
    assert max(compared([a, b, c], [x, y, z], shift, residual[:, :, :])) < 1e-12


def test_expanded_upstream_gradient_agrees() -> None:
    matrices, maps, shift, residual = inputs(2, 3, (4, 1), 9, torch.float64)
    leaves = [t.detach().requires_grad_() for t in (*matrices, *maps, shift, residual)]
    for function in (mix, mix_reference):
        function(leaves[:2], leaves[2:4], leaves[4], leaves[5]).sum().backward()
    # Both functions' gradients were added up in .grad.
    for leaf, expected in zip(
        leaves, torch.autograd.grad(mix_reference(leaves[:2], leaves[2:4], *leaves[4:]).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(leaf.grad, 2 * expected)


def test_weights_below_float16_range_agree() -> None:
    # As small as the weights of tokens whose maps sum to 1 over a large image; float16's smallest number is 6e-8.
    (a, b), (x, g), _, _ = inputs(1, 16, (16, 4), 40, torch.float16)
    b = 1e-9 * b
    leaf = g.detach().requires_grad_()
    upstream = (1e4 * random(1, 16, 40, seed=8)).half()
    (found,) = torch.autograd.grad(mix([a, b], [x, leaf]), leaf, upstream)
    expected = b.double().transpose(1, 2) @ upstream.double()
    assert (found.double() - expected).abs().max() < 2e-3 * expected.abs().max()
    token_alone = mix([1e4 * b], [(1e4 * g.double()).half()])
    expected = (1e4 * b.double()) @ (1e4 * g.double()).half().double()
    assert (token_alone.double() - expected).abs().max() < 2e-3 * expected.abs().max()


@pytest.mark.parametrize("tokens", [16, 32])
@pytest.mark.parametrize("branch", [True, False], ids=["branch", "no branch"])
def test_many_tokens_that_sum_to_1_over_a_large_image_agree(tokens: int, branch: bool) -> None:
    # More tokens than the kernel adds one by one: like those of channels, their weights are rounded to float16.
    cells = 50_000
    matrices, maps, _, _ = inputs(1, 20, (24, *((24,) if branch else ()), tokens), 40, torch.float16)
    *_, onto_tokens = matrices
    *_, g = maps
    onto_tokens /= cells
    # A token concentrated on few pixels has values up to the number of cells.
    g.copy_(cells * torch.rand(g.shape, generator=torch.Generator().manual_seed(1)) ** 8)
    zeros = [torch.zeros_like(m) for m in matrices[:-1]]
    for before in (zeros, matrices[:-1]):
        found = mix([*before, onto_tokens], maps)
        expected = mix_reference([m.double() for m in (*before, onto_tokens)], [x.double() for x in maps])
        # The rounding of the weights and of the output.
        assert (found.double() - expected).abs().max() < 1e-3 * expected.abs().max()


def test_token_rows_of_zeros_agree() -> None:
    matrices, maps, _, _ = inputs(1, 20, (24, 16), 40, torch.float16)
    matrices[1][:, ::3] = 0
    expected = mix_reference([m.double() for m in matrices], [x.double() for x in maps])
    assert (mix(matrices, maps).double() - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize(
    "wanted", [(True, False, False, False), (False, True, False, False), (False, False, True, False)]
)
def test_only_some_gradients(wanted: tuple[bool, ...]) -> None:
    matrices, maps, shift, residual = inputs(1, 4, (4, 1), 20, torch.float64)
    tensors = [matrices[0], maps[0], shift, residual]
    leaves = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]

    def gradient(function: object) -> Tensor:
        output = function([leaves[0], matrices[1]], [leaves[1], maps[1]], *leaves[2:])  # type: ignore[operator]
        (found,) = torch.autograd.grad(output.square().sum(), [x for x in leaves if x.requires_grad])
        return found

    torch.testing.assert_close(gradient(mix), gradient(mix_reference))


def test_two_runs_agree_bit_for_bit() -> None:
    matrices, maps, shift, residual = inputs(1, 5, (5, 1), 300, torch.float32)

    def run(*t: Tensor) -> tuple[Tensor]:
        return (mix(t[:2], t[2:4], t[4], t[5]),)

    (outputs, gradients), again = (differentiate(run, [*matrices, *maps, shift, residual]) for _ in range(2))  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip([*outputs, *gradients], [*again[0], *again[1]], strict=True))


def test_opcheck() -> None:
    matrices, maps, shift, residual = inputs(1, 3, (4, 1), 10, torch.float32)
    maps = [x.contiguous() for x in maps]
    leaves = [[t.requires_grad_() for t in group] for group in (matrices, maps, [shift, residual])]
    torch.library.opcheck(torch.ops.exda.mix.default, (leaves[0], leaves[1], *leaves[2]))
    with torch.no_grad():
        grad = random(1, 3, 10, dtype=torch.float32)
        detached = [[t.detach() for t in group] for group in (matrices, maps)]
        torch.library.opcheck(torch.ops.exda.mix_map_gradients.default, (grad, *detached))
        torch.library.opcheck(torch.ops.exda.mix_matrix_gradients.default, (grad, detached[1]))
        torch.library.opcheck(torch.ops.exda.mix_weight_gradients.default, (grad, detached[1]))
        torch.library.opcheck(torch.ops.exda.mix_transposed.default, ([grad[:, :, :7]], [grad]))


def test_compiled_with_gradients() -> None:
    matrices, maps, shift, residual = inputs(1, 4, (4, 1), 20, torch.float32)
    leaves = [t.detach().requires_grad_() for t in (*matrices, *maps, shift, residual)]

    def loss(*t: Tensor) -> Tensor:
        return mix(t[:2], t[2:4], t[4], t[5]).square().sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves), leaves)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)


M, X = torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)


@pytest.mark.parametrize(
    ("matrices", "maps", "shift", "residual", "message"),
    [
        ([], [], None, None, "0 matrices and 0 maps; expected as many of both, 1 to 3"),
        ([M] * 4, [X] * 4, None, None, "expected as many of both, 1 to 3"),
        ([M, M], [X], None, None, "expected as many of both"),
        ([M], [X[:, :, :0]], None, None, "none of them 0"),
        ([M, M], [X, X[:, :, 1:]], None, None, "of one dtype"),
        ([M, M], [X, X.half()], None, None, "of one dtype"),
        ([M], [X[:, 1:]], None, None, r"expected \(B, O, C_i\)"),
        ([M, M[:, 1:]], [X, X], None, None, "O and the dtype the same for all"),
        ([M, M.half()], [X, X], None, None, "O and the dtype the same for all"),
        ([M[:, :0]], [X], None, None, r"expected \(B, O, C_i\)"),
        ([M], [X], torch.zeros(3), None, r"shift is \(3,\)"),
        ([M], [X], None, X, "residual is"),
        ([M], [X], None, torch.zeros(2, 3, 5).half(), "residual is"),
        ([M.int()], [X.int()], None, None, "the dtype is torch.int32"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(
    matrices: list[Tensor], maps: list[Tensor], shift: Tensor | None, residual: Tensor | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mix(matrices, maps, shift, residual)
