from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import triton
from torch import Tensor, nn

from exda_primitives.errors import InputError
from exda_primitives.ops.triton import depthwise as module
from exda_primitives.ops.triton import depthwise_backward, depthwise_forward, launch
from exda_primitives.ops.triton.depthwise import (
    convolution_unsupported_reason,
    depthwise,
    unsupported_reason,
)

from .agreement import TOLERANCE, differentiate, disagreement, poison, random
from .references import depthwise_reference

ACTIVATIONS = pytest.mark.parametrize("activation", ["none", "gelu", "gate"])
# Every activation in float64, where a mistake shows most; the gate, which includes GELU, in every dtype.
EACH = pytest.mark.parametrize(
    ("activation", "dtype"),
    [(activation, torch.float64) for activation in ("none", "gelu", "gate")]
    + [("gate", dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)],
)
SMALL = triton.Config({"LANES": 16, "RY": 4, "UNROLL": 2})


@pytest.fixture(autouse=True)
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


@pytest.fixture
def small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets so few pixels per program that a small map takes several programs: the interpreter is slow on large maps."""
    monkeypatch.setattr(depthwise_forward.depthwise_kernel, "configs", [SMALL])
    for name, value in {"LANES": 16, "ROWS": 4, "UNROLL": 2}.items():
        monkeypatch.setattr(depthwise_backward, name, value)


def parameters(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return random(channels, 1, 3, 3, dtype=dtype, seed=1), random(channels, dtype=dtype, seed=2)


def compared(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, upstream: Tensor | None = None) -> float:
    functions: list[Callable[..., Tensor]] = [
        partial(f, activation=activation) for f in (depthwise, depthwise_reference)
    ]
    return disagreement(*functions, x, weight, bias, upstream=upstream)


@EACH
@pytest.mark.usefixtures("small_programs")
def test_output_and_gradients_agree_with_the_float64_reference(activation: str, dtype: torch.dtype) -> None:
    assert compared(random(1, 6, 5, 7, dtype=dtype), *parameters(6, dtype), activation) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 6, 1, 5), (1, 10, 6, 1)])
@pytest.mark.usefixtures("small_programs")
def test_narrow_maps_agree(shape: tuple[int, ...]) -> None:
    x = random(*shape, dtype=torch.float32)
    assert compared(x, *parameters(shape[1], torch.float32), "gate") < TOLERANCE[torch.float32]


@pytest.mark.usefixtures("small_programs")
def test_several_blocks_of_images_rows_columns_and_channels() -> None:
    assert depthwise_forward.tile(33, 1, 16) == (2, 16), "33 columns and 3 channels have to take several blocks"
    x = random(2, 3, 5, 33, dtype=torch.float32)
    assert compared(x, *parameters(3, torch.float32), "none") < TOLERANCE[torch.float32]


@pytest.mark.usefixtures("small_programs")
def test_several_blocks_of_gated_channels() -> None:
    x = random(1, 6, 5, 17, dtype=torch.float32)
    assert compared(x, *parameters(6, torch.float32), "gate") < TOLERANCE[torch.float32]


@pytest.mark.parametrize(("dtype", "run"), [(torch.float32, 4), (torch.bfloat16, 8)])
@pytest.mark.usefixtures("small_programs")
def test_neighbours_taken_from_registers(dtype: torch.dtype, run: int) -> None:
    x = random(1, 2, 3, 48, dtype=dtype)
    assert depthwise_forward.run_length(x) == run
    assert compared(x, *parameters(2, dtype), "gate") < TOLERANCE[dtype]


@pytest.mark.parametrize("config", depthwise_forward.CONFIGS, ids=str)
def test_every_configuration_agrees(config: triton.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise_forward.depthwise_kernel, "configs", [config])
    x, (weight, bias) = random(1, 1, 35, 16, dtype=torch.float32), parameters(1, torch.float32)
    expected = depthwise_reference(x.double(), weight.double(), bias.double(), "gelu")
    assert (depthwise(x, weight, bias, "gelu") - expected).abs().max() < TOLERANCE[torch.float32]


def test_backward_in_its_own_configuration_agrees() -> None:
    x = random(1, 1, 19, 16, dtype=torch.float32)
    assert compared(x, *parameters(1, torch.float32), "none") < TOLERANCE[torch.float32]


@pytest.mark.usefixtures("small_programs")
def test_without_bias() -> None:
    x, (weight, _) = random(1, 4, 3, 6, dtype=torch.float32), parameters(4, torch.float32)
    assert compared(x, weight, None, "gate") < TOLERANCE[torch.float32]


@pytest.mark.parametrize(("activation", "dtype"), [("gelu", torch.float64), ("gate", torch.bfloat16)])
@pytest.mark.usefixtures("small_programs")
def test_a_shift_inside_the_map(activation: str, dtype: torch.dtype) -> None:
    x, shift = random(1, 6, 5, 7, dtype=dtype), random(6, dtype=dtype, seed=3)

    def shifted(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return function(*tensors[:3], activation, tensors[3])

    functions = (partial(shifted, depthwise), partial(shifted, depthwise_reference))
    assert disagreement(*functions, x, *parameters(6, dtype), shift) < TOLERANCE[dtype]


@pytest.mark.parametrize(("dtype", "run"), [(torch.float32, 4), (torch.float16, 8)])
@pytest.mark.usefixtures("small_programs")
def test_a_shift_of_neighbours_taken_from_registers(dtype: torch.dtype, run: int) -> None:
    x, (weight, bias) = random(1, 2, 3, 16, dtype=dtype), parameters(2, torch.float32)
    assert depthwise_forward.run_length(x) == run
    found = depthwise(x, weight, bias, "gate", bias)
    expected = depthwise_reference(*(t.double() for t in (x, weight, bias)), "gate", bias.double())
    assert (found - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("wanted", [(0,), (1,), (3,)], ids=str)
@pytest.mark.usefixtures("small_programs")
def test_only_some_gradients_with_a_shift(wanted: tuple[int, ...]) -> None:
    tensors = [random(1, 2, 3, 4), *parameters(2, torch.float64), random(2, seed=3)]
    leaves = [t.requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    found, expected = (
        torch.autograd.grad(f(*leaves[:3], "gelu", leaves[3]).square().sum(), [leaves[i] for i in wanted])
        for f in (depthwise, depthwise_reference)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


STRIDED: dict[str, Callable[[int], Tensor]] = {
    "slice of channels": lambda c: random(2, c + 5, 3, 16, dtype=torch.float32)[:, 3 : c + 3],
    "slice of columns": lambda c: random(2, c, 3, 20, dtype=torch.float32)[..., 4:],
    "channels last": lambda c: random(2, c, 3, 6, dtype=torch.float32).to(memory_format=torch.channels_last),
    "rows and columns swapped": lambda c: random(2, c, 6, 5, dtype=torch.float32).transpose(2, 3),
    "one image for all": lambda c: random(1, c, 3, 16, dtype=torch.float32).expand(2, -1, -1, -1),
    "a single number": lambda c: random(1, 1, 1, 1, dtype=torch.float32).expand(2, c, 3, 6),
}


@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED)
@pytest.mark.usefixtures("small_programs")
def test_any_strides_of_the_map_and_of_the_upstream_gradient(make: Callable[[int], Tensor]) -> None:
    x, upstream = make(2), make(1)
    weight, bias = parameters(2, torch.float32)
    assert compared(x, weight, bias, "gate", upstream) < TOLERANCE[torch.float32]
    # Without an activation, the upstream gradient is that of z, which backward reads in its own strides.
    assert compared(x, weight, bias, "none", make(2)) < TOLERANCE[torch.float32]
    assert depthwise(x, weight, bias, "gate").is_contiguous()


@pytest.mark.parametrize("dimension", range(4))
@pytest.mark.usefixtures("small_programs")
def test_offsets_beyond_32_bits(dimension: int) -> None:
    strides = [1, 1, 1, 1]
    strides[dimension] = 2**30 + 16
    # The operating system provides memory only for pages that are touched.
    storage = torch.UntypedStorage(2 * (2**31 + 64))
    x = torch.tensor([], dtype=torch.float16).set_(storage, 0, [1 + 2 * (i == dimension) for i in range(4)], strides)
    channels = x.shape[1]
    x.copy_(random(*x.shape, dtype=torch.float16))
    assert compared(x, *parameters(channels, torch.float16), "none") < TOLERANCE[torch.float16]


@pytest.mark.usefixtures("small_programs")
def test_float32_parameters_of_a_half_precision_map() -> None:
    x = random(1, 2, 3, 6, dtype=torch.bfloat16)
    assert compared(x, *parameters(2, torch.float32), "gate") < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("size", [30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.usefixtures("small_programs")
def test_gelu_far_from_zero(dtype: torch.dtype, size: float) -> None:
    x = (size * random(1, 2, 3, 5).sign()).to(dtype)
    assert compared(x, torch.ones(2, 1, 3, 3, dtype=dtype) / 16, None, "gelu") < TOLERANCE[dtype]


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)], ids=str)
@pytest.mark.usefixtures("small_programs")
def test_only_the_gradients_that_are_needed(
    wanted: tuple[int, ...], activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [random(1, 2, 3, 4, dtype=torch.float32), *parameters(2, torch.float32)]
    function = partial(depthwise, activation=activation)
    upstream = random(1, 2, 3, 4, dtype=torch.float32, seed=3)
    _, *everything = differentiate(function, tuple(tensors), upstream)
    leaves = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    asked = []

    def spy(*arguments: object) -> tuple[Tensor, ...]:
        asked.append(arguments[5:7])
        return depthwise_backward.depthwise_gradients(*arguments)

    monkeypatch.setattr(module, "depthwise_gradients", spy)
    found = torch.autograd.grad(function(*leaves), [leaves[i] for i in wanted], upstream)
    assert asked == [(0 in wanted, 1 in wanted or 2 in wanted)]
    assert all(torch.equal(f, everything[i]) for f, i in zip(found, wanted, strict=True))


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.usefixtures("small_programs")
def test_unneeded_gradients_are_not_computed(activation: str) -> None:
    x, (weight, bias) = random(1, 2, 3, 3, dtype=torch.float32), parameters(2, torch.float32)
    for need_x, need_parameters in ((True, False), (False, True), (False, False)):
        found = depthwise_backward.depthwise_gradients(x, x, weight, bias, activation, need_x, need_parameters)
        assert [g is not None and g.numel() > 0 for g in found] == [need_x, need_parameters, need_parameters]


@ACTIVATIONS
@pytest.mark.usefixtures("small_programs")
def test_only_the_arguments_are_saved_for_backward(activation: str) -> None:
    tensors = [t.requires_grad_() for t in (random(1, 4, 3, 3, dtype=torch.float32), *parameters(4, torch.float32))]
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        depthwise(*tensors, activation)
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in tensors}


@pytest.mark.usefixtures("small_programs")
def test_two_runs_agree_bit_for_bit() -> None:
    tensors = (random(1, 2, 5, 20, dtype=torch.float32), *parameters(2, torch.float32))
    first, second = (differentiate(partial(depthwise, activation="gelu"), tensors, tensors[0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.usefixtures("small_programs")
def test_operators_pass_opcheck() -> None:
    x, (weight, bias) = random(1, 2, 2, 3, dtype=torch.float32), parameters(2, torch.float32)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    torch.library.opcheck(torch.ops.exda.depthwise.default, (*leaves, "gate", leaves[2].detach()))
    for needed in ((True, False), (False, True)):
        arguments = (x[:, :1], x, weight, None, "gate", *needed)
        checks = ("test_schema", "test_faketensor")
        torch.library.opcheck(torch.ops.exda.depthwise_backward.default, arguments, test_utils=checks)


@pytest.mark.usefixtures("small_programs")
def test_compiles_into_one_graph_of_any_size() -> None:
    torch._dynamo.reset()
    function = partial(depthwise, activation="gate")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((3, 5), (2, 7)):
        tensors = (random(1, 2, *size, dtype=torch.float32), *parameters(2, torch.float32))
        found, expected = (differentiate(f, tensors, tensors[0][:, :1]) for f in (compiled, function))
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    torch._dynamo.reset()


@pytest.mark.usefixtures("small_programs")
def test_second_derivatives_are_refused() -> None:
    x, (weight, bias) = random(1, 2, 3, 3, dtype=torch.float32).requires_grad_(), parameters(2, torch.float32)
    (gradient,) = torch.autograd.grad(depthwise(x, weight, bias, "gelu").sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        gradient.sum().backward()


X, WEIGHT, BIAS = torch.zeros(2, 3, 4, 5), torch.zeros(3, 1, 3, 3), torch.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((X, WEIGHT, BIAS, "relu"), "unknown activation 'relu'; known are 'none', 'gelu', 'gate'"),
        ((X[0], WEIGHT), "x is (3, 4, 5)"),
        ((X[:0], WEIGHT), "x is (0, 3, 4, 5)"),
        ((X[..., :0], WEIGHT), "x is (2, 3, 4, 0)"),
        ((X, torch.zeros(3, 1, 5, 5)), "the weight is (3, 1, 5, 5)"),
        ((X, torch.zeros(3, 3, 3, 3)), "the weight is (3, 3, 3, 3)"),
        ((X, torch.zeros(6, 1, 3, 3)), "the weight is (6, 1, 3, 3)"),
        ((X, WEIGHT, BIAS[:2]), "the bias is (2,)"),
        ((X, WEIGHT, None, "none", BIAS[:2]), "the shift is (2,)"),
        ((X, WEIGHT, None, "none", BIAS.to("meta")), "a parameter on meta"),
        ((X, WEIGHT, BIAS, "gate"), "3 is odd"),
        ((X, WEIGHT.to("meta")), "a parameter on meta"),
        ((X.to(torch.complex64), WEIGHT), "torch.complex64"),
        ((X, WEIGHT, BIAS.long()), "torch.int64"),
    ],
)
def test_unsupported_arguments_are_refused_with_the_reason(arguments: tuple[Tensor, ...], reason: str) -> None:
    found = unsupported_reason(*arguments)
    assert found is not None
    assert reason in found
    with pytest.raises(InputError) as caught:
        depthwise(*arguments)
    assert found in str(caught.value)


def test_cpu_without_the_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unsupported_reason(X, WEIGHT, BIAS) is None
    assert unsupported_reason(X.double(), WEIGHT) is None
    monkeypatch.setattr(launch, "INTERPRETED", False)
    assert "on cpu" in str(unsupported_reason(X, WEIGHT, BIAS))
    assert "float64" in str(unsupported_reason(X.double(), WEIGHT))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel_size": 5, "padding": 2}, "kernel_size=(5, 5)"),
        ({"stride": 2}, "stride=(2, 2)"),
        ({"padding": 0}, "padding=(0, 0)"),
        ({"dilation": 2, "padding": 2}, "padding=(2, 2)"),
        ({"dilation": 2}, "dilation=(2, 2)"),
        ({"groups": 2}, "groups=2"),
        ({"out_channels": 8}, "out_channels=8"),
        ({"padding_mode": "reflect"}, "padding_mode='reflect'"),
    ],
)
def test_unsupported_convolutions_have_a_reason(options: dict[str, int | str], reason: str) -> None:
    usual = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4}
    assert convolution_unsupported_reason(nn.Conv2d(**usual)) is None
    assert reason in str(convolution_unsupported_reason(nn.Conv2d(**(usual | options))))
