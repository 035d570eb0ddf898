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
    """Steps are computed by kernels, as on a GPU: by Triton's interpreter, on the CPU."""
    monkeypatch.setattr(triton_or_torch, "computes_steps", lambda device: "triton")


@pytest.fixture
def ran(monkeypatch):
    """Names of the steps that kernels have computed, in order."""
    return _recording(monkeypatch, {name: getattr(triton_or_torch, name) for name in STEPS})


@pytest.fixture
def as_formulas(monkeypatch):
    """Formulas in place of the kernels, for tests of what runs: the interpreter is slow."""
    norm = reference.step.norm
    formulas = {
        "attention_step": lambda x, n, terms, like=None: x + concat_free.mdta(norm(x, n), terms),
        "gated_step": lambda x, n, terms, like=None: x + reference.step.gated(norm(x, n), terms),
        "normalise": norm,
    }
    for name, formula in formulas.items():
        monkeypatch.setattr(triton_or_torch, name, formula)


@pytest.fixture
def ran_as_formulas(as_formulas, ran):
    """As ``ran``, with formulas in place of the kernels."""
    return ran


def _recording(monkeypatch, functions):
    names = []
    for name, function in functions.items():

        def recorded(*arguments, name=name, function=function):
            names.append(name)
            return function(*arguments)

        monkeypatch.setattr(triton_or_torch, name, recorded)
    return names
