"""A patched network is rebuilt from its state dict alone, whatever its architecture, configuration and wrapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.patching.unchanged import unchanged
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.models import AMIR, AdaIR, ExDA, Histoformer, MoCEIR, PromptIR, Restormer, create, identify

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}
# A block at every level, by which the modules between the levels are inferred.
WHOLE: dict[str, Any] = {**SMALL, "num_blocks": [1, 1, 1, 1]}
NETWORKS = {
    "restormer": (Restormer, SMALL),
    "promptir": (PromptIR, {**WHOLE, "dim": 48, "ffn_expansion_factor": 1.0}),
    "adair": (AdaIR, WHOLE),
    "histoformer": (Histoformer, {**SMALL, "ffn_expansion_factor": 2}),
    "amir": (AMIR, {**SMALL, "inp_channels": 3, "out_channels": 3}),
    "moceir": (MoCEIR, {**SMALL, "num_dec_blocks": [1, 0, 0], "rank_type": "spread"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "after": {"value_position": "after"},
    "replace": {"value": "replace", "init": "paper"},
    "gelu": {"value": "gelu", "init": "paper"},
    "sigmoid alone": {"value": "sigmoid", "tokens": 0, "init": "paper"},
    "mean": {"scale": "mean"},
    "stride 4": {"stride": 4},
    "tokens alone": {"tokens": 3, "value": "none"},
    "nothing": {"tokens": 0, "value": "none"},
}


def trained(network: type[nn.Module] = Restormer, arguments: dict[str, Any] = SMALL, **patching: Any) -> nn.Module:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = network(**arguments).eval()
        exda.patch(model, verify=False, **patching)
        for parameter in exda.new_parameters(model):
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def image() -> Tensor:
    return torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def restored(model: nn.Module) -> Tensor:
    with torch.random.fork_rng():
        # MoCE-IR's routing draws random numbers in eval mode too.
        torch.manual_seed(0)
        out: Tensor = model.eval()(image())
    return out


def written(state: dict[str, Tensor], path: Path, wrapping: str = "bare") -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
        return path
    prefixed = {f"net.{name}": tensor for name, tensor in state.items()}
    held: dict[str, Any] = {
        "bare": state,
        "BasicSR": {"params": state, "params_ema": state},
        "Lightning": {"state_dict": prefixed, "epoch": 3},
        "by hand": {"model_state_dict": {f"module.{name}": t for name, t in state.items()}, "epoch": 3},
    }
    torch.save(held[wrapping], path)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_rebuilt(name: str, tmp_path: Path) -> None:
    model = trained(*NETWORKS[name], config=exda.ExDAConfig(tokens=2, scale="mean", value_position="after"))
    made = create(checkpoint=written(dict(model.state_dict()), tmp_path / "model.pth"))
    assert type(made) is type(model)
    assert exda.is_patched(made)
    assert exda.config_of(made) == exda.config_of(model)
    assert torch.equal(restored(made), restored(model))
    exda.unpatch(made)
    assert not exda.is_patched(made)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_configuration_is_rebuilt(options: dict[str, Any], tmp_path: Path) -> None:
    model = trained(config=exda.ExDAConfig(**options))
    made = create(checkpoint=written(dict(model.state_dict()), tmp_path / "model.pth"))
    assert exda.config_of(made) == exda.ExDAConfig(**options)
    assert torch.equal(restored(made), restored(model))
    exda.save(made, tmp_path / "again.safetensors", whole=True)
    assert torch.equal(restored(create(checkpoint=tmp_path / "again.safetensors")), restored(model))


@pytest.mark.parametrize("wrapping", ["bare", "BasicSR", "Lightning", "by hand", "safetensors"])
def test_network_is_rebuilt_from_any_trainers_file(wrapping: str, tmp_path: Path) -> None:
    model = trained(include="latent")
    path = tmp_path / ("model.safetensors" if wrapping == "safetensors" else "model.pth")
    written(dict(model.state_dict()), path, wrapping)
    made = create("restormer", checkpoint=path)
    assert [n for n, m in made.named_modules() if isinstance(m, exda.ExDAModule)] == ["latent.0.attn"]
    assert torch.equal(restored(made), restored(model))
    into = Restormer(**SMALL)
    exda.load_checkpoint(path, into=into)
    assert torch.equal(restored(into), restored(model))


def test_network_built_with_exda_is_rebuilt_as_such(tmp_path: Path) -> None:
    config = exda.ExDAConfig(stride=4, value_position="after", init="paper")
    model = ExDA(**SMALL, config=config)
    path = written(dict(model.state_dict()), tmp_path / "model.pth")
    made = create(checkpoint=path)
    assert isinstance(made, ExDA)
    assert not exda.is_patched(made)
    assert torch.equal(restored(made), restored(model))
    assert identify(path).arguments["config"] == config


def test_model_with_another_configuration_is_refused(tmp_path: Path) -> None:
    path = written(dict(trained().state_dict()), tmp_path / "model.pth")
    model = Restormer(**SMALL)
    exda.patch(model, exda.ExDAConfig(stride=4))
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError, match=r"latent.0.attn|encoder_level1.0.attn"):
        exda.load_checkpoint(path, into=model)


def without_configurations(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith("_extra_state")}


def test_file_without_configurations_needs_a_given_one(tmp_path: Path) -> None:
    config = exda.ExDAConfig(value_position="after")
    model = trained(config=config)
    path = written(without_configurations(dict(model.state_dict())), tmp_path / "model.pth")
    why = "does not say with which configuration.*config=ExDAConfig"
    for read in (create, identify):
        with pytest.raises(exda.CheckpointError, match=why):
            read(checkpoint=path)
        assert read(checkpoint=path, config=config) is not None
    for into in (Restormer(**SMALL), trained(config=config)):
        with unchanged(into), pytest.raises(exda.CheckpointError, match=why):
            exda.load_checkpoint(path, into=into)
        exda.load_checkpoint(path, into=into, config=config)
        assert torch.equal(restored(into), restored(model))
    assert torch.equal(restored(create(checkpoint=path, config=config)), restored(model))


@pytest.mark.parametrize(
    "config", [exda.ExDAConfig(tokens=2**30), exda.ExDAConfig(tokens=2), exda.ExDAConfig(tokens=0)]
)
def test_given_configuration_that_does_not_fit_is_refused(config: exda.ExDAConfig, tmp_path: Path) -> None:
    path = written(without_configurations(dict(trained().state_dict())), tmp_path / "model.pth")
    with pytest.raises(exda.CheckpointError, match="does not fit"):
        create(checkpoint=path, config=config)


def test_damaged_configuration_is_refused_by_name(tmp_path: Path) -> None:
    state = dict(trained().state_dict())
    state["latent.0.attn._extra_state"] = state["latent.0.attn._extra_state"] + 1
    path = written(state, tmp_path / "model.pth")
    with pytest.raises(exda.CheckpointError, match=r"latent\.0\.attn: its configuration cannot be read"):
        create(checkpoint=path)


def test_extra_state_of_another_module_is_loaded(tmp_path: Path) -> None:
    class Counting(nn.Conv2d):
        calls = 0

        def get_extra_state(self) -> Tensor:
            return torch.tensor(self.calls)

        def set_extra_state(self, state: Tensor) -> None:
            self.calls = int(state)

    def made() -> Any:
        return nn.Sequential(Counting(3, 8, 1), exda.ExDAAttention(8, 2))

    model, other = made(), made()
    model[0].calls = 5
    path = written(dict(model.state_dict()), tmp_path / "model.pth")
    exda.load_checkpoint(path, into=other)
    assert other[0].calls == 5
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("patched", ["params", "params_ema"])
def test_file_with_one_patched_entry_needs_param_key(patched: str, tmp_path: Path) -> None:
    model = trained()
    host = Restormer(**SMALL).state_dict()
    other = {"params": "params_ema", "params_ema": "params"}[patched]
    torch.save({patched: model.state_dict(), other: host}, tmp_path / "model.pth")
    for read in (create, identify, lambda checkpoint: exda.load_checkpoint(checkpoint, into=Restormer(**SMALL))):
        with pytest.raises(exda.CheckpointError, match=f"'{patched}' is of a patched network and '{other}' is not"):
            read(checkpoint=tmp_path / "model.pth")
    assert exda.is_patched(create(checkpoint=tmp_path / "model.pth", param_key=patched))
    assert not exda.is_patched(create(checkpoint=tmp_path / "model.pth", param_key=other))
    with pytest.raises(exda.CheckpointError, match=r"no entry param_key='ema'.* params"):
        create(checkpoint=tmp_path / "model.pth", param_key="ema")


@pytest.mark.parametrize("network", [Restormer, PromptIR, AdaIR, Histoformer, AMIR, MoCEIR], ids=lambda n: n.__name__)
def test_output_that_the_image_cannot_be_added_to_is_refused(network: type[nn.Module], tmp_path: Path) -> None:
    arguments = {**NETWORKS[network.__name__.lower()][1], "out_channels": 64}
    with torch.device("meta"):
        state = {n: torch.zeros(t.shape) for n, t in network(**arguments).state_dict().items()}
    with pytest.raises(exda.CheckpointError, match="takes 3 channels and returns 64"):
        create(
            checkpoint=written({n: torch.zeros(t.shape, device="cpu") for n, t in state.items()}, tmp_path / "m.pth")
        )


def test_unknown_entries_are_named_and_can_be_ignored(tmp_path: Path) -> None:
    model = trained()
    state = {**model.state_dict(), "chnl_reduce1.body.weight": torch.zeros(3), "noise_level.weight": torch.zeros(1)}
    path = written(state, tmp_path / "model.pth")
    with pytest.raises(
        exda.CheckpointError, match=r"has beside it chnl_reduce1\.body\.weight, noise_level[\s\S]*ignore="
    ):
        create(checkpoint=path)
    made = create(checkpoint=path, ignore=["chnl_reduce*", "noise_level"])
    assert torch.equal(restored(made), restored(model))
    exda.load_checkpoint(path, into=made, ignore=["chnl_reduce*", "noise_level"])
    with pytest.raises(exda.CheckpointError, match=r"ignore='nothing\*' matches none of its names"):
        create(checkpoint=path, ignore="nothing*")


def test_primitives_outside_an_attention_are_loaded_like_other_modules(tmp_path: Path) -> None:
    def made() -> nn.Module:
        return nn.ModuleDict({"value": exda.NonlinearValue(8), "token": exda.GST(8, 2)})

    model, other = made(), made()
    exda.load_checkpoint(written(dict(model.state_dict()), tmp_path / "model.pth"), into=other)
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in model.state_dict().items())


def test_version_1_of_exda_files_is_read(tmp_path: Path) -> None:
    model, path = trained(config=exda.ExDAConfig(tokens=2)), tmp_path / "old.safetensors"
    names = [name for name, module in model.named_modules() if isinstance(module, exda.ExDAModule)]
    exda.save(model, path, whole=True)
    header = {"format": "exda_primitives", "version": "1", "whole": "true"}
    options = '{"tokens": 2, "stride": 2, "scale": "sum", "reinject": "mean", "value": "residual", "init": "identity"}'
    save_file(
        without_configurations(load_file(path)),
        path,
        {**header, "config": options, "modules": str(names).replace("'", '"')},
    )
    assert torch.equal(restored(create(checkpoint=path)), restored(model))
    into = Restormer(**SMALL)
    exda.load(into, path)
    assert torch.equal(restored(into), restored(model))
