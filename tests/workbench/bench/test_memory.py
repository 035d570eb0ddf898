"""Peak memory, and errors that mean that memory is not enough."""

import pytest
import torch
from tests.workbench.bench.stubs import CPU
from torch import nn

from exda_primitives.workbench.bench.memory import Peak, out_of_memory
from exda_primitives.workbench.bench.precision import FLOAT32
from exda_primitives.workbench.bench.training import TrainingStep


def test_the_peak_is_the_most_alive_at_a_time() -> None:
    def step() -> torch.Tensor:
        first = torch.zeros(1000)
        second = first + 1
        del first
        return second.double()

    # Alive together: first 4000 and 4000 bytes, then 4000 and 8000.
    assert Peak(CPU, ()).of(step) == 12000


def test_weights_do_not_count() -> None:
    layer = nn.Linear(100, 10, bias=False)
    image = torch.ones(5, 100)

    def step() -> None:
        with torch.no_grad():
            # Makes a view of the weights, which does not count either.
            layer(image)

    assert Peak(CPU, tuple(layer.parameters())).of(step) == 4 * 5 * 10


def test_gradients_and_the_state_of_the_optimizer_count() -> None:
    model = nn.Conv2d(3, 3, 31, padding=15, bias=False)
    image = torch.rand(1, 3, 4, 4)
    peak = Peak(CPU, tuple(model.parameters())).of(TrainingStep(model, model, image, image, FLOAT32))
    # A gradient and two moments, each of the weights' size; the temporaries of the update add at most two and a half.
    assert 3 <= peak / (4 * model.weight.numel()) < 5.5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_errors_of_missing_memory_are_recognised(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


def test_the_error_of_the_installed_pytorch_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert out_of_memory(raised.value)
