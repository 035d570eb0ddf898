"""Configurations of the trainings: the widened host, the changes of a setting, the pace."""

import dataclasses

import pytest
from benchmarks.quality.configs import configuration, counted, model_arguments
from benchmarks.quality.forms import COMPARED, FORMS, HOST, PRIMITIVES, WIDENED, Job, Setting
from benchmarks.quality.pace import pace, steps_in_time
from tests.benchmarks.quality.small import SETTING, benchmark_config, sources

import exda_primitives as exda
from exda_primitives.workbench.training.build import build
from exda_primitives.workbench.training.plan import parameters


@pytest.mark.parametrize("name", FORMS)
def test_the_widened_host_has_as_many_parameters(name):
    config = FORMS[name]
    widened, both = counted(model_arguments(config, WIDENED)), counted(config.model, PRIMITIVES[COMPARED])
    assert abs(widened / both - 1) < 0.01
    assert counted(config.model) < 0.95 * both


def test_counted_parameters_are_those_of_the_trained_networks(tmp_path):
    config, source = benchmark_config(), str(sources(tmp_path).train)
    for arm, expected in ((HOST, counted(config.model)), (COMPARED, counted(config.model, PRIMITIVES[COMPARED]))):
        assert parameters(build(configuration(config, Job(SETTING, arm, 0, "steps"), source)).net) == expected


def test_a_network_too_coarse_to_be_widened_is_refused(monkeypatch):
    # Hidden channels come in whole numbers: no width matches to one in a million.
    monkeypatch.setattr("benchmarks.quality.configs.CLOSE", 1e-6)
    with pytest.raises(exda.ConfigError, match="apart; take a larger network"):
        model_arguments(benchmark_config(model={**benchmark_config().model, "dim": 16}), WIDENED)


def test_a_setting_changes_what_it_says():
    setting = Setting("all", "", {"recipe": {"steps": 7}, "data": {"patch": 32}}, {"include": ["decoder"], "tokens": 4})
    config = configuration(benchmark_config(), Job(setting, COMPARED, 5, "steps"), "crops.zip")
    assert (config.recipe.steps, config.recipe.seed, config.recipe.learning_rate, config.data.patch) == (7, 5, 1e-3, 32)
    assert config.primitives is not None
    assert (config.primitives.include, config.primitives.tokens, config.primitives.init) == (
        ("decoder",),
        4,
        "identity",
    )
    assert configuration(benchmark_config(), Job(setting, HOST, 5, "steps"), "crops.zip").primitives is None
    assert configuration(benchmark_config(), Job(setting, HOST, 5, "time"), "crops.zip", 2).recipe.steps == 2


SETTINGS = {study.setting.name: study.setting for config in FORMS.values() for study in config.studies}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_can_be_built(name):
    config = configuration(FORMS["cpu"], Job(SETTINGS[name], COMPARED, 0, "steps"), "crops.zip")
    network = build(config)
    assert network.report is not None
    attentions = len(network.report.matches)
    # Three levels down, the latent one, three up, and the refinement, which is a stage of its own.
    assert attentions == {"decoder": 3, "latent": 1}.get(name, 8)


def test_two_seeds_differ_in_the_seed_alone():
    one, two = (configuration(benchmark_config(), Job(SETTING, HOST, seed, "steps"), "crops.zip") for seed in (0, 1))
    assert dataclasses.replace(one, recipe=dataclasses.replace(one.recipe, seed=1)) == two


def test_a_larger_batch_has_a_higher_pace(tmp_path):
    config, source = benchmark_config(), str(sources(tmp_path).train)
    host = configuration(config, Job(SETTING, HOST, 0, "steps"), source)
    larger = dataclasses.replace(host, recipe=dataclasses.replace(host.recipe, accumulate=1, batch=64))
    found = pace({HOST: host, "larger": larger}, "cpu", steps=1, turns=3)
    assert found["host_seconds"] > 0
    assert found["ratio"][HOST] == 1
    # 64 times the pixels.
    assert found["ratio"]["larger"] > 2


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 100), (1.25, 80), (0.8, 125), (1e6, 1)])
def test_steps_in_time(ratio, expected):
    assert steps_in_time(100, ratio) == expected
