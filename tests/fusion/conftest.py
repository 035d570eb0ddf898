import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

from exda_primitives.ops import kernels, reference
from exda_primitives.ops import torch as concat_free

STEPS = ("attention_step", "gated_step", "normalise")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Triton's interpreter on the CPU stands for a GPU."""
    monkeypatch.setattr(kernels, "computes_steps", lambda device: "triton")


@pytest.fixture
def ran(monkeypatch):
    """Names of the functions that were computed by kernels."""
    return _noting(monkeypatch, {name: getattr(kernels, name) for name in STEPS})


@pytest.fixture
def ran_as_formulas(monkeypatch):
    """The same where the interpreter's results do not matter: the formulas in place of the kernels, which are slow."""
    norm = reference.step.norm
    return _noting(
        monkeypatch,
        {
            "attention_step": lambda x, n, terms, like=None: x + concat_free.mdta(norm(x, n), terms),
            "gated_step": lambda x, n, terms, like=None: x + reference.step.gated(norm(x, n), terms),
            "normalise": norm,
        },
    )


def _noting(monkeypatch, functions):
    names = []
    for name, function in functions.items():

        def noted(*arguments, name=name, function=function):
            names.append(name)
            return function(*arguments)

        monkeypatch.setattr(kernels, name, noted)
    return names


@pytest.fixture
def rounding_as_on_a_gpu(monkeypatch):
    """Triton's interpreter cuts float32 off to make bfloat16, a GPU rounds it to the nearest, ties to even."""
    convert = interpreter._convert_float

    def rounded(numbers, given, wanted, mode):
        if given != tl.float32 or wanted != tl.bfloat16:
            return convert(numbers, given, wanted, mode)
        bits = np.ascontiguousarray(numbers).view(np.uint32).astype(np.uint64)
        return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).astype(np.uint16).reshape(numbers.shape)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)
