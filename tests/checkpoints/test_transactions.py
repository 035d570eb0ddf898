"""Loading is atomic: whatever fails, and wherever, the model is as it was before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.patching.unchanged import unchanged
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.checkpoints import fit
from exda_primitives.models import Restormer

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}


def network(seed: int = 0, *, patched: bool = False) -> Restormer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Restormer(**SMALL).eval()
        if patched:
            exda.patch(model, verify=False)
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model = tmp_path_factory.mktemp("files"), network(1, patched=True)
    exda.save(model, folder / "whole.safetensors", whole=True)
    torch.save({"params": model.state_dict()}, folder / "patched.pth")
    torch.save({"params": network(2).state_dict()}, folder / "host.pth")
    exda.save(model, folder / "new.safetensors")
    return {path.name: path for path in folder.iterdir()}


def load(model: nn.Module, path: Path) -> None:
    if path.suffix == ".pth":
        exda.load_checkpoint(path, into=model)
    else:
        exda.load(model, path, any_host=True)


NAMES = ("whole.safetensors", "patched.pth", "host.pth", "new.safetensors")


def expanded(model: nn.Module) -> None:
    """Expands one row over the whole weight, which therefore cannot be written to."""
    weight = model.get_parameter("output.weight")
    weight.data = weight.data[:1].expand_as(weight)


def quantised(model: Any) -> None:
    model.output.weight = nn.Parameter(
        torch.quantize_per_tensor(model.output.weight.detach(), 0.1, 0, torch.qint8), requires_grad=False
    )


@pytest.mark.parametrize("name", ["whole.safetensors", "patched.pth", "host.pth"])
@pytest.mark.parametrize("change", [expanded, quantised], ids=["expanded", "quantised"])
@pytest.mark.parametrize("patched", [False, True], ids=["host", "patched"])
def test_tensor_that_cannot_be_written_to_is_refused(
    files: dict[str, Path], name: str, change: Callable[[nn.Module], None], patched: bool
) -> None:
    model = network(patched=patched)
    change(model)
    why = "nothing was loaded" if change is expanded else r"torch\.qint8"
    with unchanged(model, random_numbers=False), pytest.raises(exda.CheckpointError, match=why):
        load(model, files[name])


class Failure(BaseException):
    """Raised by this test alone, so that nothing else catches it."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_error_at_any_tensor_changes_nothing(
    files: dict[str, Path], name: str, device: str, data: st.DataObject
) -> None:
    with torch.device(device):
        model = network(patched=data.draw(st.booleans()) or name == "host.pth")
    fails_at, done = data.draw(st.integers(0, 20)), 0
    writes = Tensor.copy_ if device == "cpu" else fit._put

    def failing(*arguments: Any, **keywords: Any) -> Any:
        nonlocal done
        done += 1
        if done == fails_at + 1:
            raise Failure
        return writes(*arguments, **keywords)

    with pytest.MonkeyPatch.context() as patcher, unchanged(model, random_numbers=False):
        # Fails only within ``copy_into``: planning and probing call ``Tensor.copy_`` before it.
        into = fit.copy_into

        def failing_copy_into(*arguments: Any) -> None:
            with pytest.MonkeyPatch.context() as inner:
                if device == "cpu":
                    inner.setattr(Tensor, "copy_", failing)
                else:
                    inner.setattr(fit, "_put", failing)
                into(*arguments)

        for module in ("exda_file", "third_party"):
            patcher.setattr(f"exda_primitives.checkpoints.{module}.copy_into", failing_copy_into)
        with pytest.raises(Failure):
            load(model, files[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_load_into_meta_keeps_dtype_ties_and_requires_grad(
    files: dict[str, Path], name: str, dtype: torch.dtype
) -> None:
    with torch.device("meta"):
        model: Any = network(patched=name == "host.pth").to(dtype)
    model.latent[0].ffn.project_in.weight.requires_grad_(False)
    model.latent[0].norm2.body.weight = model.latent[0].norm1.body.weight
    load(model, files[name])
    if name == "new.safetensors":
        assert {parameter.dtype for parameter in exda.new_parameters(model)} == {dtype}
        assert not any(parameter.is_meta for parameter in exda.new_parameters(model))
        return
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.latent[0].norm2.body.weight is model.latent[0].norm1.body.weight
    assert not model.latent[0].ffn.project_in.weight.requires_grad
    assert model.latent[0].ffn.project_out.weight.requires_grad
