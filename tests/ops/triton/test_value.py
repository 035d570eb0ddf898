from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.terms import Branch
from exda_primitives.ops.triton.value import mix_value
from exda_primitives.ops.value import hidden

from .agreement import TOLERANCE, disagreement, poison, random
from .programs import shrink_depthwise
from .references import mix_reference

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CHANNELS, TOKENS, ROWS = 4, 2, 3


@pytest.fixture(autouse=True)
def _small_programs_and_unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    shrink_depthwise(monkeypatch)


def reference(
    v: Tensor,
    branch: Branch,
    value_matrix: Tensor | None,
    branch_matrix: Tensor,
    g: Tensor | None,
    token_matrix: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    pairs = [(value_matrix, v), (branch_matrix, hidden(v, branch)), (token_matrix, g)]
    matrices, maps = zip(*((m, x.flatten(2)) for m, x in pairs if m is not None and x is not None), strict=True)
    out = mix_reference(matrices, maps, shift, None if residual is None else residual.flatten(2))
    return out.unflatten(2, v.shape[2:])


def call(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Adapts ``mix_value`` or its reference to take tensors only."""

    def run(
        v: Tensor,
        weight: Tensor,
        bias: Tensor,
        depthwise_weight: Tensor,
        depthwise_bias: Tensor,
        *others: Tensor | None,
    ) -> Tensor:
        # The branch's last convolution is folded into the matrices; these stand in for it and are not read.
        branch = Branch(weight, bias, depthwise_weight, depthwise_bias, weight, bias)
        return function(v, branch, *others)

    return run


def inputs(
    value: bool = True,
    tokens: bool = True,
    shift: bool = True,
    residual: bool = True,
    dtype: torch.dtype = torch.float32,
    **sizes: int,
) -> list[Tensor | None]:
    batch, channels, rows = sizes.get("batch", 2), sizes.get("channels", CHANNELS), sizes.get("rows", ROWS)
    size = sizes.get("height", 3), sizes.get("width", 7)
    # Matrices stay float32, as the fold makes them.
    wide = dtype if dtype is torch.float64 else torch.float32
    return [
        random(batch, channels, *size, dtype=dtype),
        (random(channels, channels, 1, 1, seed=1) / channels**0.5).to(dtype),
        random(channels, seed=2, dtype=dtype),
        (random(channels, 1, 3, 3, seed=3) / 3).to(dtype),
        random(channels, seed=4, dtype=dtype),
        random(batch, rows, channels, seed=5, dtype=wide) if value else None,
        random(batch, rows, channels, seed=6, dtype=wide),
        random(batch, TOKENS, *size, seed=7, dtype=dtype) if tokens else None,
        random(batch, rows, TOKENS, seed=8, dtype=wide) if tokens else None,
        random(batch, rows, seed=10, dtype=wide) if shift else None,
        random(batch, rows, *size, seed=11, dtype=dtype) if residual else None,
    ]


def compared(tensors: list[Tensor | None]) -> float:
    return disagreement(call(mix_value), call(reference), *tensors)


@pytest.mark.parametrize("value", [True, False], ids=["residual", "replace"])
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "no tokens"])
@pytest.mark.parametrize(("shift", "residual"), [(True, True), (False, False)])
def test_outputs_and_gradients_agree(value: bool, tokens: bool, shift: bool, residual: bool) -> None:
    assert compared(inputs(value, tokens, shift, residual)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_agrees(dtype: torch.dtype) -> None:
    # Half types are rounded between the convolutions, forward and backward.
    assert compared(inputs(dtype=dtype)) < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize(
    "sizes",
    [
        {"height": 1, "width": 1},
        {"batch": 1, "height": 9, "width": 1, "channels": 1, "rows": 1},
        # More than a tile of 16 channels and of 16 rows holds.
        {"height": 1, "width": 3, "channels": 17, "rows": 17},
        # More rows than a program of the convolution takes, more pixels than one of the products.
        {"batch": 1, "height": 5, "width": 33, "channels": 2},
    ],
    ids=str,
)
def test_edge_shapes_agree(sizes: dict[str, int]) -> None:
    assert compared(inputs(**sizes)) < 2 * TOLERANCE[torch.float32]


def test_float32_parameters_of_bfloat16_maps_agree() -> None:
    tensors = inputs()
    for index in (0, 7, 10):
        tensors[index] = tensors[index].bfloat16()  # type: ignore[union-attr]
    assert compared(tensors) < 3 * TOLERANCE[torch.bfloat16]


def test_sliced_map_and_expanded_shift_agree() -> None:
    tensors = inputs()
    tensors[0] = random(2, 3 * CHANNELS, 3, 7, dtype=torch.float32)[:, 2 * CHANNELS :]
    tensors[9] = random(ROWS, dtype=torch.float32).expand(2, -1)
    assert compared(tensors) < TOLERANCE[torch.float32]


# Without the value's matrix only the gradients that take other kernels: the map, the branch's first and last, pairs.
@pytest.mark.parametrize(
    ("value", "each"),
    [
        (True, [*((i,) for i in range(11)), (0, 5), (2, 4), (7, 9)]),
        (False, [(0,), (1,), (4,), (6,), (2, 4), (7, 9)]),
    ],
    ids=["residual", "replace"],
)
def test_only_the_gradients_that_are_needed(value: bool, each: list[tuple[int, ...]]) -> None:
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs(value, batch=1)]
    upstream = random(1, ROWS, 3, 7, dtype=torch.float32, seed=9)
    present = [index for index, leaf in enumerate(leaves) if leaf is not None]
    everything = torch.autograd.grad(call(mix_value)(*leaves), [leaves[i] for i in present], upstream)
    expected = dict(zip(present, everything, strict=True))
    for wanted in each:
        for index, leaf in enumerate(leaves):
            if leaf is not None:
                leaf.requires_grad_(index in wanted)
        found = torch.autograd.grad(call(mix_value)(*leaves), [leaves[i] for i in wanted], upstream)
        assert all(torch.equal(f, expected[i]) for f, i in zip(found, wanted, strict=True)), wanted


def test_only_the_arguments_are_saved_for_backward() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call(mix_value)(*tensors)
    # The gradients of shift and residual need neither.
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in tensors[:9] if t is not None}


def test_backward_ignores_autocast() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    leaves = [t for t in tensors if t is not None]
    found = []
    for enabled in (False, True):
        out = call(mix_value)(*tensors)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad(out, leaves, out.detach()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("value", [True, False])
def test_operator_passes_opcheck(value: bool) -> None:
    tensors = inputs(value, tokens=value, shift=value, residual=value, batch=1, height=2, width=3)
    v, *of_branch, value_matrix, branch_matrix, g, token_matrix, shift, residual = (
        None if t is None else t.requires_grad_() for t in tensors
    )
    arguments = (value_matrix, branch_matrix, token_matrix, v, g, *of_branch, shift, residual)
    torch.library.opcheck(torch.ops.exda.mix_value.default, arguments)


def test_compiles_into_one_graph_of_any_size() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(call(mix_value), fullgraph=True, dynamic=True, backend="aot_eager")
    for height, width in ((3, 5), (2, 7)):
        tensors = inputs(height=height, width=width)
        leaves = [None if t is None else t.requires_grad_() for t in tensors]
        found, expected = (
            [out := function(*leaves), *torch.autograd.grad(out.square().sum(), leaves)]  # type: ignore[arg-type]
            for function in (compiled, call(mix_value))
        )
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    torch._dynamo.reset()


def test_second_derivatives_are_refused() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    (gradient,) = torch.autograd.grad(call(mix_value)(*tensors).sum(), tensors[0], create_graph=True)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("index", "wrong", "reason"),
    [
        (0, torch.zeros(4, 3, 7), "x is (4, 3, 7)"),
        (3, torch.zeros(3, 1, 3, 3), "the weight is (3, 1, 3, 3)"),
        (6, torch.zeros(2, ROWS, CHANNELS + 1), "(2, 3, 5)"),
        (7, torch.zeros(2, TOKENS, 3, 7).half(), "torch.float16"),
        (9, torch.zeros(ROWS), "shift is (3,)"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(index: int, wrong: Tensor, reason: str) -> None:
    tensors = inputs()
    tensors[index] = wrong
    with pytest.raises(InputError) as caught:
        call(mix_value)(*tensors)
    assert reason in str(caught.value)
