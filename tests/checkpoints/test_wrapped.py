"""Wrapped networks are saved as bare ones are, and files load into wrapped networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.optim.swa_utils import AveragedModel

import exda_primitives as exda
from exda_primitives.models import Restormer
from exda_primitives.models.blocks import TransformerBlock

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}


class Trained(lightning.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.loss_fn = nn.Conv2d(3, 3, 1)


def checkpointed(model: nn.Module) -> nn.Module:
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, TransformerBlock))
    return model


def compiled_parts(model: Any) -> nn.Module:
    model.latent[0] = torch.compile(model.latent[0], backend="eager")
    model.encoder_level1[0].ffn = torch.compile(model.encoder_level1[0].ffn, backend="eager")
    whole: nn.Module = model
    return whole


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bare": lambda model: model,
    "DataParallel": nn.DataParallel,
    "averaged": AveragedModel,
    "compiled": lambda model: torch.compile(model, backend="eager"),  # type: ignore[dict-item, return-value]
    "averaged and compiled": lambda model: AveragedModel(torch.compile(model, backend="eager")),
    "Lightning": Trained,
    "checkpointed": checkpointed,
    "compiled parts": compiled_parts,
}
wrappers = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


def network(seed: int = 0, *, patched: bool = True) -> nn.Module:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = Restormer(**SMALL).eval()
        if patched:
            exda.patch(model, exda.ExDAConfig(stride=4), verify=False)
            for parameter in exda.new_parameters(model):
                parameter.add_(0.1)
    return model


@torch.no_grad()
def restored(model: nn.Module) -> Tensor:
    out: Tensor = model(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return out


@wrappers
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "new"])
def test_file_of_a_wrapped_network_loads_into_a_bare_one(
    wrap: Callable[[nn.Module], nn.Module], whole: bool, tmp_path: Path
) -> None:
    path, model = tmp_path / "exda.safetensors", network()
    expected = restored(model)
    exda.save(wrap(model), path, whole=whole)
    exda.save(network(), tmp_path / "bare.safetensors", whole=whole)
    assert load_file(path).keys() == load_file(tmp_path / "bare.safetensors").keys()
    # Another host where the file replaces its weights, else the host that the patch belongs to.
    other = network(seed=int(whole), patched=False)
    exda.load(other, path)
    assert torch.equal(restored(other), expected)


@wrappers
@pytest.mark.parametrize("patched", [True, False], ids=["patched", "host"])
def test_files_load_into_wrapped_networks(
    wrap: Callable[[nn.Module], nn.Module], patched: bool, tmp_path: Path
) -> None:
    if wrap in (compiled_parts,) and not patched:
        # Patching what is compiled by itself is refused, see tests/patching/test_compiled.py.
        patched = True
    exda.save(network(), tmp_path / "exda.safetensors", whole=True)
    torch.save({"params": network(2, patched=False).state_dict()}, tmp_path / "host.pth")
    inner = network(1, patched=patched)
    model = wrap(inner)
    exda.load(model, tmp_path / "exda.safetensors")
    network_in = model.module if isinstance(model, AveragedModel) else inner
    network_in = getattr(network_in, "_orig_mod", network_in)
    # Compiled parts multiply in another order than the bare network does for a small map.
    torch.testing.assert_close(restored(network_in), restored(network()), rtol=0, atol=1e-5)
    exda.load_checkpoint(tmp_path / "host.pth", into=model)
    host = network(2, patched=False).state_dict()
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in network_in.state_dict().items()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in host.items())


def test_user_network_with_built_in_attentions_is_saved_and_loaded(tmp_path: Path) -> None:
    def user_network(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Conv2d(3, 8, 1), exda.ExDAAttention(8, 2, tokens=2), nn.Conv2d(8, 3, 1)).eval()

    exda.save(user_network(0), tmp_path / "whole.safetensors", whole=True)
    model = user_network(1)
    exda.load(model, tmp_path / "whole.safetensors")
    assert torch.equal(restored(model), restored(user_network(0)))
    exda.save(user_network(0), tmp_path / "new.safetensors")
    with pytest.raises(exda.CheckpointError, match="other weights"):
        exda.load(user_network(1), tmp_path / "new.safetensors")
    exda.load(user_network(0), tmp_path / "new.safetensors")
