"""A saved patch fits only the host that it was trained on, and is refused on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.patching.unchanged import unchanged
from torch import nn

import exda_primitives as exda
from exda_primitives.checkpoints.fingerprint import check_host, fingerprint
from exda_primitives.models import Restormer

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}


def host(seed: int = 0, **options: Any) -> Restormer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Restormer(**{**SMALL, **options}).eval()


def patch_file(path: Path, model: nn.Module | None = None) -> Path:
    model = host() if model is None else model
    exda.patch(model)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(0.1)
    exda.save(model, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return patch_file(tmp_path / "patch.safetensors")


def test_host_that_it_was_trained_on_is_accepted(file: Path) -> None:
    model = host()
    exda.load(model, file)
    assert exda.is_patched(model)


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("changed", ["another", "one weight", "fine-tuned"])
def test_another_host_is_refused_unless_allowed(file: Path, changed: str, patched: bool) -> None:
    model = host(seed=1 if changed == "another" else 0)
    with torch.no_grad():
        if changed == "one weight":
            model.output.weight[0, 0, 0, 0] += 1e-6
        elif changed == "fine-tuned":
            for parameter in model.parameters():
                parameter.mul_(1.001)
    if patched:
        exda.patch(model)
    why = r"trained on a host with other weights.*whole=True.*any_host=True"
    with unchanged(model, random_numbers=False), pytest.raises(exda.CheckpointError, match=why):
        exda.load(model, file)
    exda.load(model, file, any_host=True)
    assert exda.is_patched(model)


def test_whole_file_of_a_fine_tuned_model_loads_on_another_host(tmp_path: Path) -> None:
    model = host()
    exda.patch(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    exda.save(model, tmp_path / "whole.safetensors", whole=True)
    other = host(seed=1)
    exda.load(other, tmp_path / "whole.safetensors")
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(other(image), model(image))


def test_another_backbone_is_refused_though_names_and_shapes_fit(tmp_path: Path) -> None:
    # A deeper network has all attentions of a shallower one.
    deeper = host(num_blocks=[1, 1, 1, 1])
    path = patch_file(tmp_path / "patch.safetensors", host(num_blocks=[1, 0, 0, 1]))
    exda.patch(deeper, include=["encoder_level1", "latent"])
    with pytest.raises(exda.CheckpointError, match="other weights"):
        exda.load(deeper, path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_same_host_in_another_dtype_is_accepted(file: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    exda.load(host().to(dtype), file)
    with pytest.raises(exda.CheckpointError, match="other weights"):
        exda.load(host(seed=1).to(dtype), file)
    exda.load(host().float(), patch_file(tmp_path / "other.safetensors", host().to(dtype)))


def test_host_with_some_weights_in_bfloat16_is_accepted(file: Path) -> None:
    model = host().bfloat16()
    for module in model.modules():
        if "Norm" in type(module).__name__:
            module.float()
    exda.load(model, file)
    assert exda.is_patched(model)


def test_host_on_meta_is_accepted(file: Path) -> None:
    with torch.device("meta"):
        model = Restormer(**SMALL)
    exda.load(model, file)
    assert exda.is_patched(model)


def test_wrapped_host_is_accepted(file: Path) -> None:
    model = host()
    for block in model.latent:
        block.ffn = torch.compile(block.ffn, backend="eager")
    exda.load(torch.nn.DataParallel(torch.compile(model, backend="eager")), file)
    assert exda.is_patched(model)


TENSORS = st.integers(0, 10**6).map(lambda seed: torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)))


@given(TENSORS, TENSORS)
@settings(max_examples=30)
def test_fingerprint_depends_on_names_shapes_and_values_but_not_order(one: torch.Tensor, other: torch.Tensor) -> None:
    marks = [
        fingerprint(each)
        for each in (
            {"a": one, "b": other},
            {"b": other, "a": one},
            {"a": one, "c": other},
            {"a": one.flatten(), "b": other},
            {"a": one, "b": other + 1},
        )
    ]
    assert marks[0] == marks[1]
    assert all(mark != marks[0] for mark in marks[2:])


def test_empty_meta_and_quantised_weights_have_no_fingerprint() -> None:
    assert fingerprint({}) is None
    assert fingerprint({"a": torch.zeros(2, device="meta")}) is None
    assert fingerprint({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}) is None
    held = fingerprint({"a": torch.ones(2)})
    with pytest.raises(exda.CheckpointError, match="here: "):
        check_host(held, {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "here")
