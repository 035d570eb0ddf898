"""Attentions whose every parameter is random, and their outputs with all gradients."""

from __future__ import annotations

import os

# Before anything imports Triton (timm does), which decides on its interpreter when it decorates a function.
os.environ["TRITON_INTERPRET"] = "1"

import gc
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives import memory

from .maps import XCAOnMaps

# Half of the system's time would go into fresh pages.
memory.keep()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job that a shell runs in the background; what is tested would not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores.
    torch.set_num_threads(1)

FAMILIES: dict[str, type[exda.ExDAModule]] = {
    "mdta": exda.ExDAAttention,
    "cross": exda.ExDACrossAttention,
    "histogram": exda.ExDAHistogramAttention,
    "xca": XCAOnMaps,
}


@pytest.fixture(scope="session", autouse=True)
def _rounding_as_on_a_gpu() -> Iterator[None]:
    from .interpreter import language_replaced_once_per_launch, rounding_as_on_a_gpu

    with rounding_as_on_a_gpu(), language_replaced_once_per_launch():
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was collected stays until the end: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True)
def _as_many_threads_after_a_test_as_before() -> Iterator[None]:
    """More than there are cores make every test after it several times slower."""
    threads = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == threads, f"this test leaves {left} threads to the next, and found {threads}"


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every attention family in turn."""
    return request.param


@pytest.fixture(scope="session", params=["mdta", "cross", "xca"])
def channel_family(request: pytest.FixtureRequest) -> str:
    """The families whose rows are softmax weights of channels, unsorted."""
    return request.param


@pytest.fixture(scope="session")
def classes() -> dict[str, type[exda.ExDAModule]]:
    """The module of every family; that of ``xca`` takes maps, as all the others do."""
    return FAMILIES


@pytest.fixture(scope="session")
def make_attention() -> Callable[..., exda.ExDAModule]:
    """Builds an attention; without ``init``, no parameter keeps a value that would hide a path (0, 1, all equal)."""

    def make(
        family: str,
        dim: int = 6,
        heads: int = 2,
        bias: bool = False,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        **options: Any,
    ) -> exda.ExDAModule:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            module = FAMILIES[family](dim, heads, bias, **options)
            module.temperature.uniform_(0.5, 3)
            if module.token is not None and "init" not in options:
                module.alpha.uniform_(-1, 1)
                module.token_gate.uniform_(0.2, 0.9)
                module.token.phi.weight.normal_()
        return module.to(dtype)

    return make


@pytest.fixture(scope="session")
def make_maps() -> Callable[..., tuple[Tensor, ...]]:
    """Normal input maps, as many as the family takes, the same numbers in every dtype."""

    def make(family: str, *shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(shape, generator=generator).to(dtype) for _ in range(1 + (family == "cross")))

    return make


@pytest.fixture(scope="session")
def differentiate() -> Callable[..., dict[str, Tensor]]:
    """The output, and the gradients of a random functional of it with respect to every input and parameter."""

    def run(module: nn.Module, maps: tuple[Tensor, ...], backend: str) -> dict[str, Tensor]:
        leaves = {f"input {i}": x.detach().clone().requires_grad_() for i, x in enumerate(maps)}
        with exda.backend(backend):
            output = module(*leaves.values())
        leaves |= dict(module.named_parameters())
        functional = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output.dtype)
        gradients = torch.autograd.grad(output, list(leaves.values()), functional)
        return {"output": output.detach()} | dict(zip(leaves, gradients, strict=True))

    return run


@pytest.fixture(scope="session")
def relative_errors() -> Callable[..., dict[str, float]]:
    """Largest deviation of every tensor, relative to the largest element of what was expected."""

    def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
        # A gradient that is small beside the others is a difference of large numbers: its rounding is theirs.
        floor = 0.1 * max((g.abs().max().item() for name, g in expected.items() if name != "output"), default=0.0)
        errors = {}
        for name, wanted in expected.items():
            size = max(wanted.abs().max().item(), 0.0 if name == "output" else floor)
            errors[name] = (found[name].double() - wanted.double()).abs().max().item() / size
        return errors

    return compare


@pytest.fixture
def terminal() -> Iterator[None]:
    """A terminal's closing ends the process, as it does unless the tests themselves are run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
