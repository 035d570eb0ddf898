"""Checks for every reference backbone: official keys, official outputs, and a patch that preserves the output."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from tests.goldens.recipe import Case, fill_state, load_spec
from torch import Tensor, nn

import exda_primitives as exda

# Largest absolute deviations; outputs peak between 0.7 and 2.9. See tests/goldens/README.md.
FLOAT32_NETWORK = 5e-5
FLOAT32_MODULE = 2e-5
FLOAT64 = 1e-9
IDENTITY = 1e-5


def build(name: str, make: Callable[..., nn.Module]) -> nn.Module:
    """Builds the module of a golden file from its arguments, with its weights, in eval mode."""
    spec = load_spec(name)
    module = make(**spec["config"])
    state = {key: torch.from_numpy(value) for key, value in fill_state(spec).items()}
    module.load_state_dict(state, strict=True)
    return module.eval()


@torch.no_grad()
def worst(module: nn.Module, case: Case, dtype: torch.dtype) -> float:
    """Returns the largest absolute deviation from the golden output, of which every ``stride``-th pixel is stored."""
    inputs = (torch.from_numpy(x).to(dtype) for x in case.inputs)
    output: Tensor = copy.deepcopy(module).to(dtype)(*inputs)
    expected, stride = (case.output64, case.stride64) if dtype is torch.float64 else (case.output, case.stride)
    assert output.dtype is dtype
    assert list(output.shape) == case.info["output_shape"]
    return (output[..., ::stride, ::stride] - torch.from_numpy(expected)).abs().max().item()


def assert_official_state(module: nn.Module, spec: dict[str, Any]) -> None:
    shapes = [(key, list(value.shape)) for key, value in module.state_dict().items()]
    assert shapes == list(spec["state_dict"].items())
    assert sum(parameter.numel() for parameter in module.parameters()) == spec["parameters"]


@torch.no_grad()
def assert_patches(model: nn.Module, families: dict[str, int], sizes: list[tuple[int, ...]], tolerance: float) -> None:
    """Asserts that patch replaces so many attentions per family within ``tolerance``, and that unpatch undoes it."""
    images = [torch.rand(size, generator=torch.Generator().manual_seed(0)) for size in sizes]
    before = [model(image) for image in images]
    keys = list(model.state_dict())
    matches = exda.patch(model).matches
    assert {family: sum(match.family == family for match in matches) for family in families} == families
    assert len(matches) == sum(families.values())
    for image, expected in zip(images, before, strict=True):
        assert (model(image) - expected).abs().max().item() <= tolerance
    assert len(exda.unpatch(model)) == len(matches)
    assert list(model.state_dict()) == keys
    assert torch.equal(model(images[0]), before[0])
