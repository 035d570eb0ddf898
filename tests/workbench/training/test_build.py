"""The network that a run starts from."""

import pytest
import torch
from tests.workbench.training.runs import TINY, config, same

import exda_primitives as exda
from exda_primitives.workbench.training.build import build

RESTORMER = {"name": "restormer", "arguments": TINY}


def test_the_weights_depend_on_the_seed_alone(tmp_path):
    configuration = config(tmp_path)
    state = torch.get_rng_state()
    first, torch_state = build(configuration).net.state_dict(), torch.get_rng_state()
    torch.manual_seed(5)
    assert same(dict(first), dict(build(configuration).net.state_dict()))
    assert torch.equal(state, torch_state)
    other = build(config(tmp_path, recipe={"seed": 1})).net.state_dict()
    assert not same(dict(first), dict(other))


def test_primitives_are_patched_in_as_configured(tmp_path):
    primitives = {"tokens": 2, "value": "gelu", "init": "paper", "include": "decoder"}
    net, report, _ = build(config(tmp_path, model=RESTORMER, primitives=primitives))
    assert exda.config_of(net) == exda.ExDAConfig(tokens=2, value="gelu", init="paper")
    assert {match.stage for match in report.matches} == {"decoder"}
    assert net.training
    net, report, _ = build(config(tmp_path, primitives=primitives | {"include": None, "exclude": "decoder"}))
    assert {match.stage for match in report.matches} == {"encoder", "latent"} & {m.stage for m in report.matches}
    assert report.matches


@pytest.mark.parametrize("primitives", [None, {"tokens": 0, "value": "none"}])
def test_without_primitives_the_host_is_not_patched(tmp_path, primitives):
    net, report, _ = build(config(tmp_path, primitives=primitives))
    assert report is None
    assert not exda.is_patched(net)


def test_as_many_tokens_as_channels_and_the_init_that_follows_from_the_value(tmp_path):
    channels = {"tokens": "channels", "value": "none"}
    net, *_ = build(config(tmp_path, model=RESTORMER, primitives=channels))
    assert exda.config_of(net) == exda.ExDAConfig(tokens="channels", value="none")
    exda.save(net, tmp_path / "channels.safetensors", whole=True)
    begun = RESTORMER | {"checkpoint": str(tmp_path / "channels.safetensors")}
    again, *_ = build(config(tmp_path, model=begun, primitives=channels))
    assert exda.configs_of(again) == exda.configs_of(net)
    gelu, *_ = build(config(tmp_path, model=RESTORMER, primitives={"value": "gelu"}))
    assert exda.config_of(gelu) == exda.ExDAConfig(value="gelu", init="paper")
    with pytest.raises(exda.ConfigError, match=r"primitives.tokens: found 'all'"):
        config(tmp_path, model=RESTORMER, primitives={"tokens": "all"})


def test_exda_is_built_with_the_primitives(tmp_path):
    model = {"name": "exda-tiny", "arguments": TINY | {"heads": [1, 1, 1, 1]}}
    assert len(exda.new_parameters(build(config(tmp_path, model=model, primitives=None)).net)) > 0
    net, report, _ = build(config(tmp_path, model=model, primitives={"tokens": 2, "value": "none", "init": "paper"}))
    configs = {module.config for module in net.modules() if isinstance(module, exda.ExDAModule)}
    assert configs == {exda.ExDAConfig(tokens=2, value="none", init="paper")}
    assert report is None
    net, *_ = build(config(tmp_path, model=model, primitives={"tokens": 0, "value": "none"}))
    assert exda.new_parameters(net) == []
    with pytest.raises(exda.ConfigError, match="exda-tiny has them in every attention"):
        build(config(tmp_path, model=model, primitives={"include": "decoder"}))


def test_a_run_starts_from_a_checkpoint(tmp_path):
    host = exda.models.Restormer(**TINY)
    torch.save({"params": host.state_dict()}, tmp_path / "host.pth")
    model = {"name": "auto", "checkpoint": str(tmp_path / "host.pth")}
    net, report, _ = build(config(tmp_path, model=model))
    assert report.applied
    loaded = net.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in host.state_dict().items())


def test_a_run_starts_from_a_patched_checkpoint(tmp_path):
    trained = exda.models.Restormer(**TINY)
    exda.patch(trained)
    for parameter in exda.new_parameters(trained):
        torch.nn.init.normal_(parameter)
    exda.save(trained, tmp_path / "weights.safetensors", whole=True)
    model = {"name": "restormer", "checkpoint": str(tmp_path / "weights.safetensors")}
    net, *_ = build(config(tmp_path, model=model, primitives={"init": "identity"}))
    assert same(dict(net.state_dict()), dict(trained.state_dict()))
    with pytest.raises(exda.ConfigError, match=r"asks for .*init='paper'.*, but encoder_level1.0.attn of .*'identity'"):
        build(config(tmp_path, model=model, primitives={"init": "paper"}))
    with pytest.raises(exda.ConfigError, match=r"asks for ExDAConfig\(tokens=0, .*value='none'"):
        build(config(tmp_path, model=model, primitives={"tokens": 0, "value": "none"}))
    net, *_ = build(config(tmp_path, model=model, primitives=None))
    assert exda.config_of(net) == exda.ExDAConfig()


def test_a_run_starts_from_a_partly_patched_checkpoint(tmp_path):
    trained = exda.models.Restormer(**TINY)
    exda.patch(trained, include="decoder")
    exda.save(trained, tmp_path / "weights.safetensors", whole=True)
    model = {"name": "auto", "checkpoint": str(tmp_path / "weights.safetensors")}
    for primitives in (None, {"include": "decoder"}, {"exclude": ["encoder_level1", "latent.*.attn"]}):
        net, *_ = build(config(tmp_path, model=model, primitives=primitives))
        assert same(dict(net.state_dict()), dict(trained.state_dict()))
    with pytest.raises(
        exda.ConfigError, match=r"leave out decoder_level1\.0\.attn, where .*weights\.safetensors has them"
    ):
        build(config(tmp_path, model=model, primitives={"include": "encoder"}))
    _, report, _ = build(config(tmp_path, model=model, primitives={}))
    assert {match.stage for match in report.matches} == {"encoder", "latent"}


def test_a_run_starts_from_a_checkpoint_with_built_in_primitives(tmp_path):
    own = exda.ExDAConfig(tokens=2, value_position="after", init="paper")
    arguments = TINY | {"heads": [1, 1, 1, 1]}
    trained = exda.models.create("exda-tiny", **arguments, config=own)
    torch.save({"params": trained.state_dict()}, tmp_path / "trained.pth")
    model = {"name": "exda", "checkpoint": str(tmp_path / "trained.pth")}
    for primitives in (None, own.as_dict()):
        net, *_ = build(config(tmp_path, model=model, primitives=primitives))
        assert same(dict(net.state_dict()), dict(trained.state_dict()))
    with pytest.raises(exda.ConfigError, match=r"asks for .*tokens=1.*, but .*attn of .*trained\.pth has .*tokens=2"):
        build(config(tmp_path, model=model, primitives={"value_position": "after", "init": "paper"}))


def test_the_recipe_decides_which_parameters_are_trained(tmp_path):
    net, *_ = build(config(tmp_path))
    assert all(parameter.requires_grad for parameter in net.parameters())
    net, *_ = build(config(tmp_path, recipe={"train": "new"}))
    ours = {id(parameter) for parameter in exda.new_parameters(net)}
    assert {id(parameter) for parameter in net.parameters() if parameter.requires_grad} == ours
    with pytest.raises(exda.ConfigError, match=r"recipe\.train: found 'new', but the network has no new parameters"):
        build(config(tmp_path, primitives=None, recipe={"train": "new"}))


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"model": {"name": "restormr"}}, exda.ConfigError, r"model: models\.create\('restormr'\).*Did you mean"),
        ({"model": {"name": "restormer", "arguments": {"width": 8}}}, exda.ConfigError, r"model\.arguments: restormer"),
        ({"model": {"name": "restormer", "arguments": {"dim": -8}}}, exda.ConfigError, r"model\.arguments: restormer"),
        ({"model": {"name": "restormer", "checkpoint": "none.pth"}}, exda.CheckpointError, "does not exist"),
        ({"primitives": {"include": "head"}}, exda.PatternError, "selects none"),
        ({"primitives": {"tokens": 3, "reinject": "channelwise"}}, exda.ConfigError, "channelwise"),
    ],
)
def test_bad_sections_are_refused(tmp_path, sections, error, message):
    with pytest.raises(error, match=message):
        build(config(tmp_path, **sections))
