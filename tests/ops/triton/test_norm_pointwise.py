from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.models.blocks import rescaled, standardised
from exda_primitives.ops.triton import norm_pointwise as module
from exda_primitives.ops.triton.norm_pointwise import fuses, norm_pointwise

from .agreement import TOLERANCE, disagreement, poison, random
from .references import norm_pointwise_reference

EPS = 1e-5
SEVERAL_SPLITS, SEVERAL_BLOCKS, ONE_PIXEL = ((1, 5, 20, 33), 7), ((1, 48, 9, 11), 70), ((2, 3, 1, 1), 5)
# Every shape in float64, where a mistake shows most; one in each other dtype.
CASES = [(torch.float64, *case) for case in (SEVERAL_SPLITS, SEVERAL_BLOCKS, ONE_PIXEL)]
CASES += [(dtype, *SEVERAL_BLOCKS) for dtype in (torch.float32, torch.float16, torch.bfloat16)]


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


@pytest.fixture(params=[True, False], ids=["fused", "separate"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computes in one kernel, then in separate ones, whatever the dtype."""
    monkeypatch.setattr(module, "fuses", lambda _: request.param)


def kernel(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, weight: Tensor, bias: Tensor | None, mean: bool
) -> Tensor:
    return norm_pointwise(x, norm_weight, norm_bias, mean, EPS, weight, bias)


def reference(
    x: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None, weight: Tensor, bias: Tensor | None, mean: bool
) -> Tensor:
    n = standardised(x) if mean else rescaled(x)
    if norm_weight is not None:
        n = n * norm_weight[:, None, None]
    if norm_bias is not None:
        n = n + norm_bias[:, None, None]
    return F.conv2d(n, weight[..., None, None], bias)


def compared(*tensors: Tensor | None, mean: bool = True, upstream: Tensor | None = None) -> float:
    return disagreement(partial(kernel, mean=mean), partial(reference, mean=mean), *tensors, upstream=upstream)


def inputs(shape: tuple[int, ...], outputs: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    channels = shape[1]
    return tuple(
        t.to(dtype)
        for t in (
            2 * random(*shape) + 3,
            random(channels, seed=1),
            random(channels, seed=2),
            random(outputs, channels, seed=3),
            random(outputs, seed=4),
        )
    )


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize(("dtype", "shape", "outputs"), CASES, ids=str)
def test_output_and_gradients_agree_with_the_float64_reference(
    dtype: torch.dtype, shape: tuple[int, ...], outputs: int, mean: bool, path: None
) -> None:
    assert compared(*inputs(shape, outputs, dtype), mean=mean) < TOLERANCE[dtype]


@pytest.mark.parametrize(("channels", "outputs"), [(1, 3), (128, 5), (20, 150)])
def test_channels_and_outputs_at_the_edges_of_blocks_agree(channels: int, outputs: int, path: None) -> None:
    assert compared(*inputs((1, channels, 5, 7), outputs, torch.float64)) < 1e-12


def test_without_eps_agrees(path: None) -> None:
    """Masked pixels beyond the map have deviation 0, and without eps are divided by it: they must not enter any sum."""

    def exact(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z = x / x.var(1, keepdim=True, unbiased=False).sqrt()
        return F.conv2d(z * norm_weight[:, None, None] + norm_bias[:, None, None], weight[..., None, None], bias)

    def found(x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return norm_pointwise(x, norm_weight, norm_bias, False, 0.0, weight, bias)

    assert disagreement(found, exact, *inputs((2, 12, 5, 7), 9, torch.float64)) < 1e-12


@pytest.mark.parametrize("absent", [(1,), (2,), (4,), (1, 2, 4)])
@pytest.mark.parametrize("mean", [True, False])
def test_without_some_parameters_agrees(absent: tuple[int, ...], mean: bool, path: None) -> None:
    tensors = inputs((2, 6, 4, 5), 7, torch.float64)
    assert compared(*(None if i in absent else t for i, t in enumerate(tensors)), mean=mean) < 1e-12


@pytest.mark.parametrize("layout", ["channels", "channels_last", "crop"])
def test_strided_maps_agree(layout: str, path: None) -> None:
    x, *parameters = inputs((2, 6, 5, 7), 4, torch.float64)
    if layout == "channels":
        x = torch.cat([x, x, x], dim=1)[:, 4:10]
    elif layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    else:
        x = F.pad(x, (2, 1, 1, 3), value=7.0)[:, :, 1:-3, 2:-1]
    upstream = random(2, 9, 5, 7, seed=3)[:, 3:7]
    assert compared(x, *parameters, upstream=upstream) < 1e-12


def test_float32_parameters_of_a_bfloat16_map_agree(path: None) -> None:
    x, *parameters = inputs((1, 6, 4, 5), 7, torch.bfloat16)
    assert compared(x, *(p.float() for p in parameters)) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("mean", [True, False])
def test_norm_pointwise_reference_agrees(mean: bool) -> None:
    tensors = inputs((2, 6, 4, 5), 7, torch.float64)
    found = norm_pointwise_reference(*tensors[:3], mean, EPS, *tensors[3:])
    torch.testing.assert_close(found, reference(*tensors, mean), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", range(5))
def test_single_gradients(wanted: int, path: None) -> None:
    tensors = inputs((1, 6, 4, 5), 7, torch.float32)
    everything = [t.clone().requires_grad_() for t in tensors]
    expected = torch.autograd.grad(kernel(*everything, True).square().sum(), everything)[wanted]
    alone = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
    (found,) = torch.autograd.grad(kernel(*alone, True).square().sum(), alone[wanted])
    assert torch.equal(found, expected)


def test_half_precision_is_one_kernel_up_to_128_channels() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert fuses(torch.zeros(1, 128, 2, 2, dtype=dtype))
        assert not fuses(torch.zeros(1, 129, 2, 2, dtype=dtype))
    for dtype in (torch.float32, torch.float64):
        assert not fuses(torch.zeros(1, 16, 2, 2, dtype=dtype))


def test_float32_is_one_kernel_if_products_may_use_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "dot_precision", lambda _: "tf32")
    assert fuses(torch.zeros(1, 128, 2, 2))
    assert not fuses(torch.zeros(1, 128, 2, 2, dtype=torch.float64))


def test_autocast_does_not_change_the_dtype(path: None) -> None:
    tensors = inputs((1, 6, 4, 5), 7, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kernel(*tensors, True)
    assert torch.equal(found, kernel(*tensors, True))


def test_two_runs_agree_bit_for_bit(path: None) -> None:
    tensors = [t.requires_grad_() for t in inputs((1, 5, 18, 17), 7, torch.float32)]
    runs = [torch.autograd.grad(kernel(*tensors, True).square().sum(), tensors) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_operator_passes_opcheck() -> None:
    x, nw, nb, w, b = (t.requires_grad_() for t in inputs((2, 5, 3, 4), 7, torch.float32))
    torch.library.opcheck(module._norm_pointwise, (x, nw, nb, True, EPS, w, b))
    torch.library.opcheck(module._norm_pointwise, (x, None, None, False, EPS, w, None))


def test_compiles_without_a_graph_break() -> None:
    tensors = [t.requires_grad_() for t in inputs((2, 5, 3, 4), 7, torch.float16)]
    compiled = torch.compile(partial(kernel, mean=True), fullgraph=True, backend="aot_eager")
    found, expected = compiled(*tensors), kernel(*tensors, True)
    assert torch.equal(found, expected)
    found, expected = (torch.autograd.grad(y.sum(), tensors) for y in (found, expected))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(1, 6, 0, 5)}, "none of them 0"),
        ({1: torch.zeros(5)}, r"the weight is \(5,\); with 6 channels"),
        ({3: torch.zeros(7, 5)}, r"the weight is \(7, 5\); with 6 channels it has to be \(O, 6\)"),
        ({3: torch.zeros(7, 6, 1, 1)}, r"the weight is \(7, 6, 1, 1\)"),
        ({3: torch.zeros(0, 6), 4: None}, r"the weight is \(0, 6\)"),
        ({4: torch.zeros(6)}, r"the bias is \(6,\); with 7 outputs it has to be \(7,\)"),
        ({3: torch.zeros(7, 6, dtype=torch.int32)}, "the dtype is torch.int32"),
        ({4: torch.zeros(7, device="meta")}, "x is on cpu, the bias on meta"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(change: dict[int, Tensor | None], message: str) -> None:
    tensors = dict(enumerate(inputs((1, 6, 4, 5), 7, torch.float32))) | change
    with pytest.raises(InputError, match=message):
        kernel(*tensors.values(), True)
