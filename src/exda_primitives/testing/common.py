"""Shared by the checks: a network around one attention, parameters changed as by training, comparisons."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import load, save
from ..patching import Backbone, Family, patch, unpatch
from ..patching.registry import Registry, load_adapters, register
from ..primitives import ExDAConfig, ExDAModule
from ..surgery.randomness import OwnRandomNumbers


class MapWrapper(nn.Module):
    """A network of one module, ``attention``, that converts maps to the family's layout and back.

    Shape:
        As many maps (B, C, H, W) as the family takes, and what its attention takes after them -> (B, C, H, W).
    """

    def __init__(self, attention: nn.Module, family: Family) -> None:
        super().__init__()
        self.attention, self.family = attention, family

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """Calls the attention with maps (B, C, H, W) and returns its output as such a map."""
        size, maps = (x.shape[2], x.shape[3]), self.family.inputs - 1
        inputs = self.family.make_inputs([x, *others[:maps]])
        return self.family.to_map(self.attention(*inputs, *others[maps:]), size)

    @property
    def ours(self) -> ExDAModule:
        """The ExDA attention, after ``patched``."""
        assert isinstance(self.attention, ExDAModule)
        return self.attention

    def patched(self, config: ExDAConfig) -> ExDAModule:
        """Patches the network in place and returns the ExDA attention."""
        patch(self, config, families=self.family.name)
        return self.ours


@torch.no_grad()
def perturb_parameters(model: nn.Module) -> None:
    """Adds noise to every parameter, so that none keeps an initial value (0, 1, all equal) that would hide a path."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        # Scaled by 1 / sqrt(fan-in), so that layers of any width keep the scale of their outputs.
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3 * fan_in**-0.5
        parameter.add_(noise.to(parameter))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Returns ``make()`` in eval mode, with the same weights at every call; the global random state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def assert_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Fails if an element of ``found`` is off by more than ``tolerance`` times the largest element of ``expected``."""
    bound = tolerance * float(expected.detach().abs().max())
    torch.testing.assert_close(
        found.to(expected.dtype), expected, rtol=0, atol=bound, msg=lambda text: f"{what}: {text}"
    )


def assert_equal(found: Tensor, expected: Tensor, what: str) -> None:
    """Fails if any element differs; NaN equals NaN."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{what}: {text}")


def output_of(model: nn.Module, called: Sequence[Tensor | None]) -> Tensor:
    """Returns the model's output for copies of the inputs, with the same random numbers at every call (for MoCE-IR)."""
    with OwnRandomNumbers():
        found: Tensor = model(*(x.clone() if isinstance(x, Tensor) else x for x in called))
    return found


@torch.no_grad()
def assert_unpatched(model: nn.Module, change: Callable[[], object], called: Sequence[Tensor | None]) -> None:
    """Fails unless ``unpatch`` undoes ``change``: objects, names, attributes, values and outputs are as before.

    Args:
        model: the model to patch.
        change: patches it.
        called: inputs of the model.
    """
    modules = dict(model.named_modules())
    attributes = {name: set(vars(module)) for name, module in modules.items()}
    parameters, state = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    before = output_of(model, called)
    change()
    output_of(model, called)
    unpatch(model)
    assert dict(model.named_modules()) == modules, "unpatch: the modules are not those that were there"
    assert {name: set(vars(module)) for name, module in modules.items()} == attributes, "unpatch: attributes are left"
    assert list(model.state_dict()) == list(state), "unpatch: the state dict has other names, or another order"
    assert all(each is parameters[name] for name, each in model.named_parameters()), "unpatch: other parameters"
    for name, tensor in model.state_dict().items():
        assert_equal(tensor, state[name], f"unpatch: {name}")
    assert_equal(output_of(model, called), before, "unpatch: the output")


@torch.no_grad()
def assert_saved(model: nn.Module, fresh: nn.Module, called: Sequence[Tensor | None]) -> None:
    """Fails unless ``fresh`` equals ``model``, in values and output, after it has loaded the file saved from it.

    Args:
        model: a patched model.
        fresh: the same network, unpatched, with other weights.
        called: inputs of the models.
    """
    expected = output_of(model, called)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(model, path, whole=True)
        load(fresh, path)
    for name, tensor in fresh.state_dict().items():
        assert_equal(tensor, model.state_dict()[name], f"exda.save and exda.load: {name}")
    assert_equal(output_of(fresh, called), expected, "exda.save and exda.load: the output")


@contextmanager
def registered(registry: Registry[Any], adapter: Family | Backbone) -> Iterator[None]:
    """Registers an adapter during the block, then restores the one that had its name before, if any.

    Raises:
        RegistrationError: see ``register_adapter``.
    """
    load_adapters()
    before = registry.known.get(adapter.name)
    if before is not adapter:
        register(adapter)
    try:
        yield
    finally:
        if before is None:
            registry.forget(adapter.name)
        else:
            registry.known[adapter.name] = before


@contextmanager
def without_warnings() -> Iterator[None]:
    """Suppresses the warning that a host's state dict lacks the new parameters, where that is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(what: str, checks: Mapping[str, Callable[..., None]], only: Sequence[str] | None, *given: Any) -> None:
    """Calls the checks one after the other.

    Args:
        what: what is checked, for messages.
        checks: name -> check.
        only: names of the checks to call; None for all.
        given: arguments of each check.

    Raises:
        ValueError: for an unknown name in ``only``.
        AssertionError: if a check fails: what is checked, the check's name and the cause.
    """
    if unknown := [name for name in only or () if name not in checks]:
        raise ValueError(f"there is no check {unknown[0]!r}; known are {', '.join(checks)}")
    for name, check in checks.items():
        if only is None or name in only:
            try:
                check(*given)
            except Exception as error:
                raise AssertionError(f"{what} fails the check {name!r}: {type(error).__name__}: {error}") from error
