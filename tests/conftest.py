"""Fixtures of all tests: attentions with random parameters, their inputs, outputs and gradients; and global state."""

from __future__ import annotations

import os

# Set before anything imports Triton (timm does): Triton reads it when it decorates a function.
os.environ["TRITON_INTERPRET"] = "1"

import gc
import signal
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives import memory
from exda_primitives.ops.cpu import unsupported as cpu_steps

from .maps import XCAOnMaps

# Otherwise half of the system time would go into fresh memory pages.
memory.keep()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells make background jobs ignore Ctrl-C (SIGINT), which some tests send: react to it again.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # pytest-xdist's workers share the cores.
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


@pytest.fixture(scope="session", autouse=True)
def _steps_on_small_maps() -> Iterator[None]:
    """Has fused blocks compute the tests' small maps, for which the modules would be faster."""
    with mock.patch.object(cpu_steps, "WORTH_STEPS", 0):
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exempts collected tests, which live until the end, from garbage collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True)
def _number_of_threads_is_restored() -> Iterator[None]:
    """Fails a test that leaves another number of threads: more than cores make later tests several times slower."""
    threads = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == threads, f"this test found {threads} threads and leaves {left}"


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every attention family in turn."""
    return request.param


@pytest.fixture(scope="session", params=["mdta", "cross", "xca"])
def channel_family(request: pytest.FixtureRequest) -> str:
    """The families that attend over channels without sorting: all but histogram."""
    return request.param


@pytest.fixture(scope="session")
def classes() -> dict[str, type[exda.ExDAModule]]:
    """The attention class of each family; that of ``xca`` takes maps (B, C, H, W), as all the others do."""
    return FAMILIES


@pytest.fixture(scope="session")
def make_attention() -> Callable[..., exda.ExDAModule]:
    """Builds an attention; without ``init``, no parameter has a value that would hide an error (0, 1, all equal)."""

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
    """Makes normally distributed input maps, as many as the family takes, the same in every dtype up to rounding."""

    def make(family: str, *shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(shape, generator=generator).to(dtype) for _ in range(1 + (family == "cross")))

    return make


@pytest.fixture(scope="session")
def differentiate() -> Callable[..., dict[str, Tensor]]:
    """Computes the output, and the gradients of a random weighted sum of it for every input and parameter."""

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
    """Computes each tensor's largest deviation, relative to the largest element of the expected tensor."""

    def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
        # A gradient much smaller than the others is a difference of large numbers and rounded like them, so it is
        # compared with at least a tenth of the largest gradient.
        floor = 0.1 * max((g.abs().max().item() for name, g in expected.items() if name != "output"), default=0.0)
        errors = {}
        for name, wanted in expected.items():
            size = max(wanted.abs().max().item(), 0.0 if name == "output" else floor)
            errors[name] = (found[name].double() - wanted.double()).abs().max().item() / size
        return errors

    return compare


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Has torch.compile compile anew, whatever tests compiled before, and forget what the test compiled."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def terminal() -> Iterator[None]:
    """Lets SIGHUP (a closed terminal) end processes, as usual, even if the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
