from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.terms import Branch
from exda_primitives.ops.triton import fold_branch
from exda_primitives.ops.triton.attend import attend, parts
from exda_primitives.ops.triton.fold import TokenMixing
from exda_primitives.ops.value import hidden

from .agreement import TOLERANCE, disagreement, poison, random
from .programs import shrink_depthwise
from .references import fold_branch_reference, gram_reference, mix_reference

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
HEADS, C, ROWS = 2, 2, 3
CHANNELS = HEADS * C
NAMES = ("first", "second", "g", "temperature", "left", "gate", "alpha", "bias", "residual")
BRANCH = ("in_weight", "in_bias", "depthwise_weight", "depthwise_bias", "out_weight", "out_bias")


@pytest.fixture(autouse=True)
def _small_programs_and_unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    shrink_depthwise(monkeypatch)


def reference(
    maps: list[Tensor],
    g: Tensor | None,
    temperature: Tensor,
    left: Tensor,
    tokens: TokenMixing | None,
    branch: Branch,
    adds: bool,
    bias: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    q, k, v = parts(maps)
    flat = None if g is None else g.flatten(2)
    rows = gram_reference(q.flatten(2), k.flatten(2), flat, temperature.numel())
    last = branch.out_weight.flatten(1), branch.out_bias
    found = fold_branch_reference(rows, temperature, left, tokens, *last, bias)
    pairs = [(found.value if adds else None, v.flatten(2)), (found.branch, hidden(v, branch).flatten(2))]
    pairs += [(found.tokens, flat)]  # type: ignore[list-item]
    matrices, used = zip(*((m, x) for m, x in pairs if m is not None and x is not None), strict=True)
    out = mix_reference(matrices, used, found.shift, None if residual is None else residual.flatten(2))
    return out.unflatten(2, v.shape[2:])


def call(function: Callable[..., Tensor], adds: bool = True) -> Callable[..., Tensor]:
    """Adapts ``attend`` or its reference to take tensors only, in the order of ``NAMES``, then of ``BRANCH``."""

    def run(*tensors: Tensor | None) -> Tensor:
        first, second, g, temperature, left, gate, alpha, bias, residual, *branch = tensors
        maps = [x for x in (first, second) if x is not None]
        tokens = None if gate is None or alpha is None else TokenMixing(gate, alpha, 3)
        return function(maps, g, temperature, left, tokens, Branch(*branch), adds, bias, residual)  # type: ignore[arg-type]

    return run


def inputs(
    cross: bool = False,
    tokens: int = 1,
    bias: bool = True,
    residual: bool = True,
    dtype: torch.dtype = torch.float32,
    **sizes: int,
) -> list[Tensor | None]:
    """The tensors of ``NAMES``, then those of ``BRANCH``."""
    batch, c, rows = sizes.get("batch", 2), sizes.get("c", C), sizes.get("rows", ROWS)
    size = sizes.get("height", 3), sizes.get("width", 7)
    channels = HEADS * c
    maps: list[Tensor | None] = [random(batch, 3 * channels, *size, dtype=dtype), None]
    if cross:
        maps = [random(batch, channels, *size, dtype=dtype), random(batch, 2 * channels, *size, dtype=dtype, seed=12)]
    return [
        *maps,
        random(batch, HEADS * tokens, *size, seed=1).abs().to(dtype) if tokens else None,
        (1 + random(HEADS, 1, 1, seed=2).abs()).to(dtype),
        (random(rows, channels, seed=3) / channels**0.5).to(dtype),
        random(HEADS, 1, 1, seed=4).sigmoid().to(dtype) if tokens else None,
        random(HEADS, 1, 1, seed=5).to(dtype) if tokens else None,
        random(rows, seed=6, dtype=dtype) if bias else None,
        random(batch, rows, *size, seed=7, dtype=dtype) if residual else None,
        (random(channels, channels, 1, 1, seed=8) / channels**0.5).to(dtype),
        random(channels, seed=9, dtype=dtype),
        (random(channels, 1, 3, 3, seed=10) / 3).to(dtype),
        random(channels, seed=11, dtype=dtype),
        (random(channels, channels, 1, 1, seed=13) / channels**0.5).to(dtype),
        random(channels, seed=14, dtype=dtype),
    ]


def compared(tensors: list[Tensor | None], adds: bool = True) -> float:
    return disagreement(call(attend, adds), call(reference, adds), *tensors)


@pytest.mark.parametrize("cross", [False, True], ids=["qkv", "q and kv"])
@pytest.mark.parametrize("adds", [True, False], ids=["residual", "replace"])
@pytest.mark.parametrize("tokens", [2, 0], ids=["tokens", "no tokens"])
@pytest.mark.parametrize("rest", [True, False], ids=["bias and residual", "neither"])
def test_outputs_and_gradients_agree(cross: bool, adds: bool, tokens: int, rest: bool) -> None:
    assert compared(inputs(cross, tokens, rest, rest), adds) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_agrees(dtype: torch.dtype) -> None:
    # Half types are rounded between the passes, forward and backward.
    assert compared(inputs(dtype=dtype)) < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize(
    "sizes",
    [
        {"height": 1, "width": 1},
        {"batch": 1, "height": 9, "width": 1, "c": 1, "rows": 1},
        # More than a tile of 16 channels and of 16 rows holds.
        {"height": 1, "width": 3, "c": 17, "rows": 17},
        # More rows than a program of the convolution takes, more pixels than one of the products.
        {"batch": 1, "height": 5, "width": 33},
    ],
    ids=str,
)
def test_edge_shapes_agree(sizes: dict[str, int]) -> None:
    assert compared(inputs(dtype=torch.float64, **sizes)) < TOLERANCE[torch.float64]


def test_matrices_by_two_launches_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_branch, "MOST_CHANNELS", 0)
    assert compared(inputs(dtype=torch.float64)) < TOLERANCE[torch.float64]


def test_float32_parameters_of_bfloat16_maps_agree() -> None:
    tensors = inputs()
    for name in ("first", "g", "residual"):
        index = NAMES.index(name)
        tensors[index] = tensors[index].bfloat16()  # type: ignore[union-attr]
    assert compared(tensors) < 3 * TOLERANCE[torch.bfloat16]


def test_a_map_that_is_a_slice_agrees() -> None:
    tensors = inputs(dtype=torch.float64)
    tensors[0] = random(2, 3 * CHANNELS + 2, 3, 7)[:, 1:-1]
    assert compared(tensors) < TOLERANCE[torch.float64]


@pytest.mark.parametrize(("cross", "adds"), [(False, True), (True, False)], ids=["qkv-residual", "q and kv-replace"])
def test_only_the_gradients_that_are_needed(cross: bool, adds: bool) -> None:
    names = (*NAMES, *BRANCH)
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs(cross, batch=1)]
    upstream = random(1, ROWS, 3, 7, dtype=torch.float32, seed=9)
    present = [index for index, leaf in enumerate(leaves) if leaf is not None]
    everything = torch.autograd.grad(call(attend, adds)(*leaves), [leaves[i] for i in present], upstream)
    expected = dict(zip(present, everything, strict=True))
    each = [(index,) for index in present]
    each += [tuple(map(names.index, pair)) for pair in (("g", "alpha"), ("in_bias", "bias"), ("first", "out_weight"))]
    for wanted in each:
        for index, leaf in enumerate(leaves):
            if leaf is not None:
                leaf.requires_grad_(index in wanted)
        found = torch.autograd.grad(call(attend, adds)(*leaves), [leaves[i] for i in wanted], upstream)
        for f, i in zip(found, wanted, strict=True):
            assert torch.equal(f, expected[i]), (names[i], wanted)


def test_maps_of_the_size_of_the_input_are_not_saved_for_backward() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call(attend)(*tensors)
    given = {t.data_ptr() for t in tensors if t is not None}
    pixels = 3 * 7
    assert [tuple(t.shape) for t in saved if t.data_ptr() not in given and t.numel() >= CHANNELS * pixels] == []


def test_gradients_of_all_channels_of_a_map_are_one_tensor() -> None:
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs()]
    assert leaves[0] is not None
    (found,) = torch.autograd.grad(call(attend)(*leaves).sum(), leaves[0])
    assert found.is_contiguous()
    assert found._base is None


def test_backward_ignores_autocast() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    leaves = [t for t in tensors if t is not None]
    found = []
    for enabled in (False, True):
        out = call(attend)(*tensors)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad(out, leaves, out.detach()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("tokens", [1, 0])
def test_operators_pass_opcheck(tokens: int) -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs(False, tokens, batch=1, height=2, width=3)]
    first, _, g, temperature, left, gate, alpha, bias, residual, *branch = tensors
    parameters = (temperature, left, gate, alpha, *branch)
    arguments: tuple[Any, ...] = ([first], g, *parameters, bias, residual, 2, False, True)
    # Without "test_aot_dispatch_dynamic": the test below covers it, in a fraction of the time.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.exda.attend.default, arguments, test_utils=checks)
    with torch.no_grad():
        out, rows, *matrices = torch.ops.exda.attend(*arguments)
        for needed in (
            [True] * 6,
            [False, False, True, False, False, False],
            [False, bool(tokens), False, True, True, True],
        ):
            given = (out, [first], g, rows, matrices, *parameters, 2, False, True, needed)
            torch.library.opcheck(torch.ops.exda.attend_backward.default, given, test_utils=checks[::2])


def test_compiles_into_one_graph_of_any_size() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(call(attend), fullgraph=True, dynamic=True, backend="aot_eager")
    for height, width in ((3, 5), (2, 7)):
        tensors = inputs(height=height, width=width)
        leaves = [None if t is None else t.requires_grad_() for t in tensors]
        given = [leaf for leaf in leaves if leaf is not None]
        found, expected = (
            [out := function(*leaves), *torch.autograd.grad(out.square().sum(), given)]
            for function in (compiled, call(attend))
        )
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    torch._dynamo.reset()


def test_second_derivatives_are_refused() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    (gradient,) = torch.autograd.grad(call(attend)(*tensors).sum(), tensors[0], create_graph=True)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("name", "wrong", "reason"),
    [
        ("first", torch.zeros(12, 3, 7), "x is (12, 1, 7)"),
        ("depthwise_weight", torch.zeros(3, 1, 3, 3), "the weight is (3, 1, 3, 3)"),
        ("left", torch.zeros(ROWS, CHANNELS + 1), "left is (3, 5)"),
        ("g", torch.zeros(2, HEADS, 3, 7).half(), "torch.float16"),
        ("bias", torch.zeros(ROWS + 1), "(4,)"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(name: str, wrong: Tensor, reason: str) -> None:
    tensors = inputs()
    tensors[(*NAMES, *BRANCH).index(name)] = wrong
    with pytest.raises(InputError) as caught:
        call(attend)(*tensors)
    assert reason in str(caught.value)
