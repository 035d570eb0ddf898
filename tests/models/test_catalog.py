"""exda.models.create, identify and list_models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.goldens.recipe import load_spec
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.checkpoints.contents import Contents
from exda_primitives.models import AMIR, AdaIR, ExDA, Histoformer, MoCEIR, PromptIR, Restormer, create
from exda_primitives.models.architecture import ArchitectureMismatch, expansion_factor
from exda_primitives.models.catalog import identity_of

OFFICIAL = {
    "restormer-default": "restormer",
    "restormer-denoise_biasfree": "restormer",
    "restormer-gray_biasfree": "restormer",
    "restormer-dualpixel": "restormer",
    "restormer-small": "restormer",
    "promptir-default": "promptir",
    "adair-default": "adair",
    "adair-small": "adair",
    "histoformer-official": "histoformer",
    "histoformer-small": "histoformer",
    "amir-default": "amir",
    "moceir-s": "moceir",
}
SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}


def contents(state: dict[str, Tensor], wrapping: str | None = None) -> Contents:
    return Contents(Path("model.pth"), state, wrapping, {})


def on_meta(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def saved(model: nn.Module, path: Path, prefix: str = "") -> Path:
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in model.state_dict().items()}}, path)
    return path


@pytest.mark.parametrize("golden", OFFICIAL)
def test_configuration_is_inferred_from_official_state_dicts(golden: str) -> None:
    spec = load_spec(golden)
    identity = identity_of(contents(on_meta(spec["state_dict"])))
    assert identity.architecture.name == OFFICIAL[golden]
    assert spec["config"] == {**spec["config"], **identity.arguments}
    inferred = {"inp_channels", "out_channels", "dim", "num_blocks", "heads", "ffn_expansion_factor", "bias"}
    assert inferred <= identity.arguments.keys()


UNUSUAL: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (Restormer, {"bias": True, "heads": [1, 3, 6, 8], "dim": 24, "ffn_expansion_factor": 2.37}),
    (Restormer, {"num_blocks": [0, 1, 2, 0], "num_refinement_blocks": 0, "LayerNorm_type": "BiasFree"}),
    (Restormer, {"num_blocks": [12, 1, 1, 1], "inp_channels": 6, "out_channels": 3, "dual_pixel_task": True}),
    (Restormer, {"num_blocks": [0, 0, 0, 0], "num_refinement_blocks": 0}),
    (PromptIR, {"dim": 48, "bias": True}),
    (PromptIR, {"dim": 48, "LayerNorm_type": "BiasFree", "heads": [2, 2, 2, 2]}),
    (AdaIR, {"bias": True, "dim": 16, "heads": [2, 4, 4, 4]}),
    (AMIR, {"inp_channels": 3, "out_channels": 3, "ffn_expansion_factor": 1.5}),
    (Histoformer, {"ffn_expansion_factor": 2.5, "bias": True, "dual_pixel_task": True}),
    (ExDA, {"config": exda.ExDAConfig(tokens=3, init="paper"), "heads": [2, 2, 2, 2]}),
    (ExDA, {"config": exda.ExDAConfig(tokens=0, init="paper"), "num_blocks": [0, 1, 1, 1]}),
    (ExDA, {"config": exda.ExDAConfig(value="none", init="paper")}),
    (MoCEIR, {"bias": True, "LayerNorm_type": "BiasFree", "rank_type": "lin", "rank": 3, "heads": [1, 2, 4, 8]}),
    (MoCEIR, {"rank_type": "exp", "num_experts": 3, "num_blocks": [0, 1, 3, 1], "num_dec_blocks": [1, 2, 3]}),
    (MoCEIR, {"rank_type": "fact", "inp_channels": 1, "out_channels": 1, "ffn_expansion_factor": 2.66}),
    (
        MoCEIR,
        {"levels": 3, "heads": [1, 2, 4], "num_blocks": [1, 2, 3], "num_dec_blocks": [3, 1], "stage_depth": [1, 1]},
    ),
    (MoCEIR, {"num_dec_blocks": [0, 0, 0], "rank_type": "spread"}),
]


@pytest.mark.parametrize(("network", "options"), UNUSUAL, ids=[f"{c.__name__}-{i}" for i, (c, _) in enumerate(UNUSUAL)])
def test_unusual_configurations_are_inferred_and_rebuilt(network: type[nn.Module], options: dict[str, Any]) -> None:
    with torch.device("meta"):
        state = network(**{**SMALL, **options}).state_dict()
        identity = identity_of(contents(state))
        again = identity.architecture.build(**identity.arguments)
    assert identity.architecture.build is network
    assert {name: t.shape for name, t in again.state_dict().items()} == {name: t.shape for name, t in state.items()}
    for name in options.keys() - {"heads", "ffn_expansion_factor", "rank_type"}:
        assert identity.arguments[name] == options[name]


def test_an_adair_without_its_frequency_blocks_is_a_restormer() -> None:
    with torch.device("meta"):
        state = AdaIR(**SMALL, decoder=False).state_dict()
        assert identity_of(contents(state)).architecture.name == "restormer"


@pytest.mark.parametrize("prefix", ["", "net.", "module.", "net._orig_mod.", "net.module."])
@pytest.mark.parametrize("network", [Restormer, AdaIR, AMIR])
def test_create_loads_the_weights(network: type[nn.Module], prefix: str, tmp_path: Path) -> None:
    model = network(**SMALL)
    made = create("auto", checkpoint=saved(model, tmp_path / "model.ckpt", prefix))
    assert type(made) is network
    assert not made.training
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_other_modules_in_a_lightning_checkpoint_are_ignored(tmp_path: Path) -> None:
    model, path = Restormer(**SMALL), tmp_path / "last.ckpt"
    state = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": {**state, "loss_fn.features.0.weight": torch.ones(2)}}, path)
    assert torch.equal(create(checkpoint=path).state_dict()["output.weight"], model.output.weight)
    other = Restormer(**SMALL)
    exda.load_checkpoint(path, into=other)
    assert torch.equal(other.output.weight, model.output.weight)
    # Only in Lightning's own layout, under "state_dict", are entries beside the network's expected.
    torch.save({**state, "loss_fn.features.0.weight": torch.ones(2)}, path)
    with pytest.raises(exda.CheckpointError, match="of no network that is known"):
        create(checkpoint=path)


def test_a_half_precision_file_makes_a_network_of_the_default_dtype(tmp_path: Path) -> None:
    model = Restormer(**SMALL).bfloat16()
    made = create("restormer", checkpoint=saved(model, tmp_path / "model.pth"))
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}


def test_create_patches_from_a_file_of_save(tmp_path: Path) -> None:
    model, path = Restormer(**SMALL).eval(), tmp_path / "whole.safetensors"
    exda.patch(model, exda.ExDAConfig(tokens=2, stride=3, init="paper"), include=["decoder", "latent.0"])
    exda.save(model, path, whole=True)
    made = create(checkpoint=path)
    assert exda.config_of(made) == exda.config_of(model)
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(made(image), model(image))
    exda.save(model, path)
    with pytest.raises(exda.CheckpointError, match=r"no network.*exda\.load\(model, this file\)"):
        create(checkpoint=path)


def test_arguments_override_the_file(tmp_path: Path) -> None:
    config = exda.ExDAConfig(init="paper", stride=4, scale="mean")
    model = ExDA(**SMALL, config=config).eval()
    made = create("exda", checkpoint=saved(model, tmp_path / "model.ckpt"), config=config)
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(made(image), model(image))


@pytest.mark.parametrize(
    ("name", "millions", "attentions"),
    [
        ("exda-base", 22.38, 28),
        ("exda-small", 10.05, 28),
        ("exda-tiny", 5.72, 28),
        ("exda-base-3557", 23.11, 37),
        ("exda-small-3557", 10.34, 36),
        ("exda-tiny-3557", 5.85, 35),
    ],
)
def test_parameters_and_attentions_of_the_exda_sizes(name: str, millions: float, attentions: int) -> None:
    with torch.device("meta"):
        model = create(name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions
    found = [module for module in model.modules() if isinstance(module, exda.ExDAModule)]
    assert len(found) == attentions
    assert all(a.value is not None and a.token is not None and a.config.init == "paper" for a in found)


def test_arguments_of_a_deeper_size_are_inferred(tmp_path: Path) -> None:
    model = create("exda-tiny-3557", dim=8)
    path = saved(model, tmp_path / "model.ckpt")
    found = exda.models.identify(path).arguments
    assert (found["num_blocks"], found["num_refinement_blocks"], found["ffn_expansion_factor"]) == ([3, 5, 5, 7], 2, 2)


def test_a_published_configuration_takes_only_its_own_checkpoint(tmp_path: Path) -> None:
    path = saved(ExDA(**SMALL), tmp_path / "model.ckpt")
    with pytest.raises(exda.CheckpointError, match=r"output\.weight|Missing in the file"):
        create("exda-tiny", checkpoint=path)
    assert isinstance(create("exda", checkpoint=path), ExDA)


def test_histoformer_by_name_is_the_published_one() -> None:
    with torch.device("meta"):
        model = create("histoformer")
    assert sum(p.numel() for p in model.parameters()) == load_spec("histoformer-official")["parameters"]


def test_list_models_lists_what_create_accepts() -> None:
    assert {"restormer", "promptir", "adair", "histoformer", "amir", "exda-base"} <= set(exda.models.list_models())
    with torch.device("meta"):
        for name in exda.models.list_models():
            assert isinstance(create(name), nn.Module)


def test_create_refuses_unknown_names_and_files_of_other_networks(tmp_path: Path) -> None:
    with pytest.raises(exda.ConfigError, match=r"'restomer'.*Did you mean 'restormer'\? Known are .*exda-tiny"):
        create("restomer")
    with pytest.raises(exda.ConfigError, match="needs a checkpoint"):
        create()
    path = saved(Restormer(**SMALL), tmp_path / "model.ckpt")
    with pytest.raises(exda.CheckpointError, match=r"is of restormer, not of promptir; create\('restormer'\)"):
        create("promptir", checkpoint=path)
    with pytest.raises(exda.ConfigError, match="no such network"):
        create("restomer", checkpoint=path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extra": torch.zeros(1)}, "restormer: has beside it extra"),
        ({"output.weight": torch.zeros(3)}, "restormer: lacks|restormer: output.weight has shape"),
        ({"patch_embed.proj.weight": torch.zeros(())}, "restormer: patch_embed.proj.weight has shape"),
        ({"latent.0.attn.temperature": torch.zeros(3, 1, 1)}, "restormer: cannot be built with"),
        ({"latent.0.attn.temperature": torch.zeros(0, 1, 1)}, "restormer: cannot be built with"),
        ({"latent.0.ffn.project_out.weight": torch.zeros(64, 5, 1, 1)}, "restormer: no factor gives"),
    ],
    ids=["extra", "output", "embedding", "heads", "no-heads", "feed-forward"],
)
def test_error_says_why_a_state_dict_is_unknown(change: dict[str, Tensor], reason: str) -> None:
    state = Restormer(**SMALL).state_dict() | change
    with pytest.raises(exda.CheckpointError, match=rf"(?s)of no network that is known.*({reason})"):
        identity_of(contents(state))


@given(
    factor=st.floats(0.3, 9).map(lambda f: round(f, 3)),
    dims=st.lists(st.integers(4, 512), min_size=1, max_size=4),
)
@settings(deadline=None)
def test_inferred_expansion_factor_gives_the_widths(factor: float, dims: list[int]) -> None:
    widths = [(dim, int(dim * factor)) for dim in dims]
    found = expansion_factor(widths)
    assert [int(dim * found) for dim in dims] == [hidden for _, hidden in widths]


def test_contradictory_widths_have_no_expansion_factor() -> None:
    with pytest.raises(ArchitectureMismatch, match="no factor"):
        expansion_factor([(10, 20), (10, 30)])
    assert expansion_factor([]) == 2.66


def test_experts_without_channels_are_refused() -> None:
    with torch.device("meta"):
        state = MoCEIR().state_dict()
        state["dec.0.2.layers.0.adapter.experts.0.0.proj.0.weight"] = torch.zeros(0, 32, 1, 1)
    with pytest.raises(exda.CheckpointError, match=r"moceir: no rule gives experts of .* and \[0, 2, 2, 2\] channels"):
        identity_of(contents(state))


@pytest.mark.parametrize("given", [Path("model.pth"), "model.pth"])
def test_file_given_as_name_is_refused_with_a_hint(given: Path | str) -> None:
    with pytest.raises(exda.ConfigError, match=r"models\.create\(checkpoint='model\.pth'\)"):
        exda.models.create(given)  # type: ignore[arg-type]
