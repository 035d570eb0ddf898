from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from exda_primitives.errors import InputError
from exda_primitives.models.blocks import LayerNorm, rescaled, standardised
from exda_primitives.ops.triton import norm
from exda_primitives.ops.triton.norm import layer_norm

from .agreement import TOLERANCE, disagreement, poison, random
from .references import layer_norm_reference

EPS = 1e-5
# Every shape in float64, where a mistake shows most; one in each other dtype.
OTHERS = [torch.float32, torch.float16, torch.bfloat16]
CASES = [(torch.float64, shape) for shape in ((2, 5, 17, 19), (1, 48, 9, 11), (3, 2, 1, 1))]
CASES += [(dtype, (1, 48, 9, 11)) for dtype in OTHERS]
# In blocks of 16 channels: two and a channel, two and a half, three.
STREAMED = [(torch.float64, channels) for channels in (33, 40, 48)] + [(dtype, 40) for dtype in OTHERS]


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def kernel(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool) -> Tensor:
    return layer_norm(x, weight, bias, subtract_mean, EPS)


def reference(x: Tensor, weight: Tensor | None, bias: Tensor | None, subtract_mean: bool) -> Tensor:
    out = standardised(x) if subtract_mean else rescaled(x)
    if weight is not None:
        out = out * weight[:, None, None]
    return out if bias is None else out + bias[:, None, None]


def compared(*tensors: Tensor | None, subtract_mean: bool, upstream: Tensor | None = None) -> float:
    options = {"subtract_mean": subtract_mean}
    return disagreement(partial(kernel, **options), partial(reference, **options), *tensors, upstream=upstream)


def inputs(*shape: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    x = 2 * random(*shape) + 3
    return x.to(dtype), random(shape[1], dtype=dtype, seed=1), random(shape[1], dtype=dtype, seed=2)


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize(("dtype", "shape"), CASES)
def test_output_and_gradients_agree_with_the_float64_reference(
    dtype: torch.dtype, shape: tuple[int, ...], subtract_mean: bool
) -> None:
    assert compared(*inputs(*shape, dtype=dtype), subtract_mean=subtract_mean) < TOLERANCE[dtype]


@pytest.mark.parametrize("subtract_mean", [True, False])
@pytest.mark.parametrize(("dtype", "channels"), STREAMED)
def test_more_channels_than_a_program_holds_agree(
    dtype: torch.dtype, channels: int, subtract_mean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norm, "WHOLE", 32)
    monkeypatch.setattr(norm, "_BLOCK_C", 16)
    assert compared(*inputs(2, channels, 5, 7, dtype=dtype), subtract_mean=subtract_mean) < TOLERANCE[dtype]


def test_one_channel_more_than_a_program_holds_agrees() -> None:
    assert compared(*inputs(1, norm.WHOLE + 1, 1, 3, dtype=torch.float32), subtract_mean=True) < 1e-5


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_single_channel_agrees(subtract_mean: bool) -> None:
    assert compared(*inputs(1, 1, 3, 5, dtype=torch.float64), subtract_mean=subtract_mean) < 1e-12


@pytest.mark.parametrize("whole", [512, 8])
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_without_eps_agrees(subtract_mean: bool, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked pixels beyond the map have deviation 0, and without eps are divided by it: they must not enter any sum."""
    monkeypatch.setattr(norm, "WHOLE", whole)

    def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        deviation = x - x.mean(1, keepdim=True)
        z = (deviation if subtract_mean else x) / deviation.square().mean(1, keepdim=True).sqrt()
        return z * weight[:, None, None] + bias[:, None, None]

    tensors = inputs(2, 12, 5, 7, dtype=torch.float64)
    assert disagreement(lambda *given: layer_norm(*given, subtract_mean, 0.0), exact, *tensors) < 1e-12


@pytest.mark.parametrize(("weight", "bias"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("subtract_mean", [True, False])
def test_without_some_parameters_agrees(weight: bool, bias: bool, subtract_mean: bool) -> None:
    x, w, b = inputs(2, 6, 4, 5, dtype=torch.float64)
    assert compared(x, w if weight else None, b if bias else None, subtract_mean=subtract_mean) < 1e-12


@pytest.mark.parametrize("layout", ["channels", "channels_last", "crop", "transposed"])
def test_strided_maps_agree(layout: str) -> None:
    x, w, b = inputs(2, 6, 5, 7, dtype=torch.float64)
    if layout == "channels":
        x = torch.cat([x, x, x], dim=1)[:, 4:10]
    elif layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "crop":
        x = torch.nn.functional.pad(x, (2, 1, 1, 3), value=7.0)[:, :, 1:-3, 2:-1]
    else:
        x = x.mT
    upstream = random(*x.shape[:2], 1, 1, seed=3).expand(x.shape)
    assert compared(x, w, b, subtract_mean=True, upstream=upstream) < 1e-12


def test_float32_parameters_of_a_bfloat16_map_agree() -> None:
    x, w, b = inputs(1, 6, 4, 5, dtype=torch.bfloat16)
    options = {"subtract_mean": True, "upstream": random(1, 6, 4, 5, dtype=torch.bfloat16)}
    assert compared(x, w.float(), b.float(), **options) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("whole", [512, 8])
def test_mean_much_larger_than_the_deviation(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm, "WHOLE", whole)
    monkeypatch.setattr(norm, "_BLOCK_C", 8)
    x = (random(1, 40, 3, 5) + 1e4).float()
    found, expected = kernel(x, None, None, True), reference(x.double(), None, None, True)
    # The mean's own rounding is 1e4 * 2^-24; E[x^2] - E[x]^2 would be off by several units.
    assert (found - expected).abs().max() < 3e-3


@pytest.mark.parametrize("norm_type", ["WithBias", "BiasFree"])
def test_computes_what_the_networks_layer_computes(norm_type: str) -> None:
    layer = LayerNorm(6, norm_type).double()
    for i, parameter in enumerate(layer.parameters()):
        parameter.data = random(6, seed=i)
    x = random(2, 6, 4, 5)
    found = kernel(x, layer.body.weight, getattr(layer.body, "bias", None), norm_type == "WithBias")
    torch.testing.assert_close(found, layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_layer_norm_reference_agrees(subtract_mean: bool) -> None:
    tensors = inputs(2, 6, 4, 5, dtype=torch.float64)
    expected = reference(*tensors, subtract_mean)
    torch.testing.assert_close(layer_norm_reference(*tensors, subtract_mean, EPS), expected, rtol=1e-12, atol=1e-12)


def test_only_some_gradients() -> None:
    x, w, b = inputs(1, 6, 4, 5, dtype=torch.float32)
    x.requires_grad_()
    (alone,) = torch.autograd.grad(kernel(x, w, b, True).sum(), x)
    w.requires_grad_()
    both = torch.autograd.grad(kernel(x, w, b, True).sum(), (x, w))
    assert torch.equal(alone, both[0])
    (last,) = torch.autograd.grad(kernel(x.detach(), w, b, True).sum(), w)
    assert torch.equal(last, both[1])


def test_two_runs_agree_bit_for_bit() -> None:
    tensors = [t.requires_grad_() for t in inputs(2, 5, 17, 19, dtype=torch.float32)]
    runs = [torch.autograd.grad(kernel(*tensors, True).square().sum(), tensors) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_operator_passes_opcheck() -> None:
    x, w, b = (t.requires_grad_() for t in inputs(2, 5, 3, 4, dtype=torch.float32))
    torch.library.opcheck(norm._layer_norm, (x, w, b, True, EPS))
    torch.library.opcheck(norm._layer_norm, (x, None, None, False, EPS))


def test_compiles_without_a_graph_break() -> None:
    tensors = [t.requires_grad_() for t in inputs(2, 5, 3, 4, dtype=torch.float32)]
    compiled = torch.compile(partial(kernel, subtract_mean=True), fullgraph=True, backend="aot_eager")
    found, expected = compiled(*tensors), kernel(*tensors, True)
    assert torch.equal(found, expected)
    found, expected = (torch.autograd.grad(y.square().sum(), tensors) for y in (found, expected))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        (torch.zeros(2, 3, 4), None, None, r"x is \(2, 3, 4\); the kernel takes \(B, C, H, W\)"),
        (torch.zeros(0, 3, 4, 5), None, None, "none of them 0"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(4), None, r"the weight is \(4,\); with 3 channels it has to be \(3,\)"),
        (torch.zeros(1, 3, 4, 5), None, torch.zeros(3, 1), r"the bias is \(3, 1\)"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.int32), None, None, "the dtype is torch.int32"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, dtype=torch.int32), None, "the dtype is torch.int32"),
        (torch.zeros(1, 3, 4, 5), torch.zeros(3, device="meta"), None, "x is on cpu, the weight on meta"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        kernel(x, weight, bias, True)
