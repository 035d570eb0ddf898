from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.ops.terms import NormTerms
from exda_primitives.ops.triton import norm_pointwise as product_module
from exda_primitives.ops.triton import projection as module
from exda_primitives.ops.triton.projection import projected, unsupported_reason

from .agreement import TOLERANCE, poison, random
from .programs import shrink_depthwise
from .references import depthwise_reference, layer_norm_reference
from .several import deviations, differentiate

EPS = 1e-5
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CHANNELS, TOKENS = 3, 2


@pytest.fixture(autouse=True)
def _small_programs_and_unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    shrink_depthwise(monkeypatch)


def set_fused(monkeypatch: pytest.MonkeyPatch, fused: bool) -> None:
    """Computes norm and product in one kernel or in separate ones, whatever the dtype."""
    for each in (module, product_module):
        monkeypatch.setattr(each, "fuses", lambda _: fused)


Call = Callable[..., tuple[Tensor, Tensor | None]]


def call(function: Call, mean: bool | None, activation: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Adapts ``projected`` or its reference to take tensors only; ``mean`` None leaves the norm out."""

    def run(x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, *parameters: Tensor | None) -> Any:
        norm = None if mean is None else NormTerms(norm_weight, norm_bias, mean, EPS)
        return function(x, norm, *parameters, activation)

    return run


def reference(
    x: Tensor,
    norm: NormTerms | None,
    weight: Tensor,
    bias: Tensor | None,
    phi: Tensor | None,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    activation: Any,
) -> tuple[Tensor, Tensor | None]:
    n = x if norm is None else layer_norm_reference(x, *norm)
    z = depthwise_reference(F.conv2d(n, weight[..., None, None], bias), depthwise_weight, depthwise_bias, activation)
    return z, None if phi is None else F.conv2d(n, phi[..., None, None])


def inputs(
    norm: bool = False, bias: bool = False, tokens: bool = False, dtype: torch.dtype = torch.float32, **sizes: int
) -> list[Tensor | None]:
    channels, outputs = sizes.get("channels", CHANNELS), sizes.get("outputs", 4)
    shape = sizes.get("batch", 2), channels, sizes.get("height", 3), sizes.get("width", 7)
    made: list[Tensor | None] = [
        random(*shape) + 1,
        random(channels, seed=1) if norm else None,
        random(channels, seed=2) if norm and bias else None,
        random(outputs, channels, seed=3) / channels**0.5,
        random(outputs, seed=4) if bias else None,
        random(TOKENS, channels, seed=5) if tokens else None,
        random(outputs, 1, 3, 3, seed=6) / 3,
        random(outputs, seed=7) if bias else None,
    ]
    return [None if t is None else t.to(dtype) for t in made]


def compared(tensors: list[Tensor | None], mean: bool | None = None, activation: str = "none") -> float:
    return max(deviations(call(projected, mean, activation), call(reference, mean, activation), tensors))


# Every activation with every norm, and both with and without tokens.
@pytest.mark.parametrize(
    ("activation", "bias", "mean", "tokens"),
    [
        ("none", False, None, True),
        ("none", False, True, False),
        ("none", False, False, True),
        ("gelu", True, None, False),
        ("gelu", True, True, True),
        ("gelu", True, False, False),
        ("gate", True, None, True),
        ("gate", True, True, False),
        ("gate", True, False, True),
    ],
)
def test_outputs_and_gradients_agree(activation: str, bias: bool, mean: bool | None, tokens: bool) -> None:
    tensors = inputs(mean is not None, bias, tokens)
    assert compared(tensors, mean, activation) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_every_dtype_agrees(dtype: torch.dtype, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    set_fused(monkeypatch, fused)
    for tokens in (False, True):
        # Half types are rounded between norm, products and convolution, forward and backward.
        assert compared(inputs(True, True, tokens, dtype), True) < 3 * TOLERANCE[dtype]


@pytest.mark.parametrize(
    "sizes",
    [
        {"height": 1, "width": 1},
        {"batch": 1, "height": 9, "width": 1, "channels": 1},
        # More than a tile of 16 channels and of 16 outputs holds.
        {"height": 1, "width": 3, "channels": 17, "outputs": 18},
        # More rows than a program of the convolution takes, more pixels than one of the products.
        {"batch": 1, "height": 5, "width": 33, "channels": 3, "outputs": 2},
    ],
    ids=str,
)
def test_edge_shapes_agree(sizes: dict[str, int]) -> None:
    assert compared(inputs(True, True, True, **sizes), True, "gate") < 2 * TOLERANCE[torch.float32]


def test_float32_parameters_of_a_bfloat16_map_agree() -> None:
    x, *parameters = inputs(True, True, True)
    assert x is not None
    assert compared([x.bfloat16(), *parameters], True) < 3 * TOLERANCE[torch.bfloat16]


def test_maps_of_other_strides_agree() -> None:
    _, *parameters = inputs(True, True, True)
    whole = random(2, CHANNELS + 2, 3, 7, dtype=torch.float32)
    for x in (whole[:, 1:-1], whole[:, 1:-1].to(memory_format=torch.channels_last), whole[:, :CHANNELS, :, ::2]):
        assert compared([x, *parameters], True) < TOLERANCE[torch.float32]
        z, logits = projected(x, None, *(each for each in parameters[2:]))  # type: ignore[arg-type]
        assert z.is_contiguous()
        assert logits is not None
        assert logits.is_contiguous()


# With an activation, backward computes the product again, for each of these gradients.
@pytest.mark.parametrize(
    ("activation", "each"),
    [
        ("none", [(0,), (1,), (3,), (4,), (5,), (6,), (7,), (0, 5), (2, 6)]),
        ("gate", [(0,), (1,), (3,), (5,), (6,), (7,)]),
    ],
    ids=["none", "gate"],
)
def test_only_the_gradients_that_are_needed(activation: str, each: list[tuple[int, ...]]) -> None:
    tensors = inputs(True, True, True, batch=1)
    function = call(projected, True, activation)
    expected = differentiate(function, tensors)[1]
    for wanted in each:
        leaves = [None if t is None else t.detach().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
        outputs = [out for out in function(*leaves) if out is not None]
        upstream = [random(*out.shape, dtype=out.dtype, seed=9 + i) for i, out in enumerate(outputs)]
        found = torch.autograd.grad(outputs, [leaves[i] for i in wanted], upstream)
        assert all(torch.equal(f, expected[i]) for f, i in zip(found, wanted, strict=True)), wanted


def test_gradients_of_one_output_alone_agree() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs(True, True, True)]
    leaves = [t for t in tensors if t is not None]
    for index in range(2):
        out, expected = (call(f, True, "none")(*tensors)[index] for f in (projected, reference))
        assert out is not None
        assert expected is not None
        found, wanted = (torch.autograd.grad(o.sum(), leaves, allow_unused=True) for o in (out, expected))
        for f, w in zip(found, wanted, strict=True):
            if w is not None:
                torch.testing.assert_close(f, w, rtol=1e-4, atol=1e-4)


def test_only_the_arguments_are_saved_for_backward() -> None:
    for norm, activation in ((True, "none"), (False, "gate")):
        tensors = [None if t is None else t.requires_grad_() for t in inputs(norm, True, True)]
        saved: list[Tensor] = []

        def pack(tensor: Tensor, saved: list[Tensor] = saved) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            call(projected, True if norm else None, activation)(*tensors)
        assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in tensors if t is not None}


def test_logits_do_not_keep_the_product_alive() -> None:
    _, logits = call(projected, None, "none")(*inputs(tokens=True, batch=1))
    assert logits is not None
    assert logits.untyped_storage().nbytes() == logits.numel() * logits.element_size()


def test_backward_ignores_autocast() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs(True, True, True)]
    leaves = [t for t in tensors if t is not None]
    found = []
    for enabled in (False, True):
        z, logits = call(projected, True, "none")(*tensors)
        assert logits is not None
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(torch.autograd.grad([z, logits], leaves, [z.detach(), logits.detach()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_two_runs_agree_bit_for_bit() -> None:
    tensors = inputs(True, True, True, height=5, width=17, outputs=2)
    first, second = (differentiate(call(projected, True, "gate"), tensors) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("tokens", [False, True])
def test_operator_passes_opcheck(tokens: bool) -> None:
    x, *of_norm, weight, bias, phi, depthwise_weight, depthwise_bias = (
        None if t is None else t.requires_grad_() for t in inputs(True, True, tokens, batch=1, height=2, width=3)
    )
    arguments: tuple[Any, ...] = (x, *of_norm, True, EPS, weight, bias, phi, depthwise_weight, depthwise_bias, "none")
    if not tokens:
        arguments = (x, None, None, False, None, weight, None, None, depthwise_weight, None, "gate")
    torch.library.opcheck(torch.ops.exda.projected.default, arguments)


def test_compiles_into_one_graph_of_any_size() -> None:
    torch._dynamo.reset()
    function = call(projected, True, "none")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for height, width in ((3, 5), (2, 7)):
        tensors = inputs(True, True, True, height=height, width=width)
        for found, expected in zip(differentiate(compiled, tensors), differentiate(function, tensors), strict=True):
            assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    torch._dynamo.reset()


def test_second_derivatives_are_refused() -> None:
    tensors = [None if t is None else t.requires_grad_() for t in inputs()]
    (gradient,) = torch.autograd.grad(call(projected, None, "gelu")(*tensors)[0].sum(), tensors[0], create_graph=True)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        gradient.sum().backward()


X, WEIGHT, DEPTHWISE = torch.zeros(2, 3, 4, 5), torch.zeros(4, 3), torch.zeros(4, 1, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((X[0], None, WEIGHT, None, None, DEPTHWISE), "(3, 4, 5)"),
        ((X, NormTerms(torch.zeros(2), None, True, EPS), WEIGHT, None, None, DEPTHWISE), "(2,)"),
        ((X, None, WEIGHT[:, :2], None, None, DEPTHWISE), "the weight is (4, 2)"),
        ((X, None, WEIGHT, torch.zeros(3), None, DEPTHWISE), "the bias is (3,)"),
        ((X, None, WEIGHT, None, WEIGHT[:, :2], DEPTHWISE), "the tokens' phi: the weight is (4, 2)"),
        ((X, None, WEIGHT, None, None, DEPTHWISE[:3]), "the weight is (3, 1, 3, 3)"),
        ((X, None, WEIGHT, None, None, DEPTHWISE, torch.zeros(3)), "the bias is (3,)"),
        ((X, None, WEIGHT[:3], None, None, DEPTHWISE[:3], None, "gate"), "3 is odd"),
        ((X, None, WEIGHT, None, None, DEPTHWISE.long()), "torch.int64"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(arguments: tuple[Any, ...], reason: str) -> None:
    found = unsupported_reason(*arguments)
    assert found is not None
    assert reason in found
    with pytest.raises(InputError) as caught:
        projected(*arguments)
    assert found in str(caught.value)
    assert unsupported_reason(X, None, WEIGHT, None, WEIGHT, DEPTHWISE) is None
