import pytest
import torch

from exda_primitives.ops import reference, triton_or_torch
from exda_primitives.ops import torch as concat_free

STEPS = ("attention_step", "gated_step", "normalise")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Triton's interpreter on the CPU stands for a GPU."""
    monkeypatch.setattr(triton_or_torch, "computes_steps", lambda device: "triton")


@pytest.fixture
def ran(monkeypatch):
    """Names of the functions that were computed by kernels."""
    return _noting(monkeypatch, {name: getattr(triton_or_torch, name) for name in STEPS})


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

        monkeypatch.setattr(triton_or_torch, name, noted)
    return names
