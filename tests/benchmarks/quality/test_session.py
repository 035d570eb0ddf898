"""Sessions of the quality benchmark: what they train, when they stop, and how they resume."""

import dataclasses
import json
import math

import pytest
from benchmarks.quality.forms import ARMS, BASE, FORMS, HOST, Setting, Study
from filelock import FileLock
from tests.benchmarks.quality.small import SETTING, Clock, all_arms, benchmark_config, session, sources

import exda_primitives as exda
from benchmarks.quality import session as module


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """Drawing the history takes longer than these runs."""
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)


@pytest.fixture(autouse=True)
def one_commit(monkeypatch):
    """Fixes the commit: one made between two legs of a run would count as another program."""
    monkeypatch.setattr("exda_primitives.workbench.shared.machine.git_commit", lambda: "a commit")


def read_result(folder, name="quality"):
    return json.loads((folder / f"{name}.json").read_text())


def without_clocks(run):
    return {name: each for name, each in run.items() if name not in {"legs", "machine"}}


def test_every_arm_is_trained_and_scored(tmp_path):
    assert session(tmp_path, benchmark_config(all_arms())).run_pending(math.inf)
    result = read_result(tmp_path)
    assert [run["arm"] for run in result["runs"]] == list(ARMS)
    for run in result["runs"]:
        assert (run["setting"], run["budget"], run["seed"], run["steps"]) == (BASE, "steps", 0, 3)
        assert len(run["scores"]["noise25"]["psnr"]) == len(run["scores"]["noise25"]["ssim"]) == 2
        assert 0 < run["scores"]["noise25"]["degraded_psnr"] < 40
    # Both initialisations have the same number of parameters; arms with fewer primitives have fewer.
    parameters = {run["arm"]: run["parameters"] for run in result["runs"]}
    assert parameters["both, identity"] == parameters["both, paper"]
    assert parameters[HOST] < parameters["tokens"] < parameters["value"] < parameters["both, paper"]
    assert len({run["scores"]["noise25"]["psnr"][0] for run in result["runs"]}) == len(ARMS)


def test_the_clustering_of_degradations_is_scored(tmp_path):
    config = benchmark_config(
        Study(SETTING, (HOST, "tokens"), (0,)), data={"degradations": ("noise25", "haze"), "patch": 16}
    )
    assert session(tmp_path, config).run_pending(math.inf)
    for run in read_result(tmp_path)["runs"]:
        # Haze has so much less contrast than noise that any network separates them.
        assert run["told_apart"] == {"nmi": [1.0] * 10, "ari": [1.0] * 10}
    # A single degradation has nothing to be separated from.
    assert session(tmp_path, benchmark_config(), "single").run_pending(math.inf)
    assert read_result(tmp_path, "single")["runs"][0]["told_apart"] is None


def test_no_path_and_no_weights_are_left(tmp_path):
    assert session(tmp_path, benchmark_config()).run_pending(math.inf)
    assert str(tmp_path) not in (tmp_path / "quality.json").read_text()
    assert [path.name for path in (tmp_path / "quality").iterdir()] == ["locks"]
    images = read_result(tmp_path)["config"]["pictures"]
    assert images["train"]["name"] == "crops.npz"
    assert images["test"]["pictures"] == 2
    assert len(images["train"]["sha256"]) == 64


def test_interrupted_sessions_give_the_same_results(tmp_path):
    config = benchmark_config(Study(SETTING, (HOST, "both, paper"), (0,)))
    assert session(tmp_path, config, "whole").run_pending(math.inf)
    turns, after = 0, set()
    while not session(tmp_path, config, "often").run_pending(2.5, Clock()):
        turns += 1
        after.update(path.name for path in (tmp_path / "often").iterdir())
        assert turns < 20
    assert turns >= 2
    assert after == {"base-steps-host-seed0", "base-steps-both-paper-seed0", "locks"}
    whole, often = (read_result(tmp_path, name)["runs"] for name in ("whole", "often"))
    assert list(map(without_clocks, often)) == list(map(without_clocks, whole))
    assert max(len(run["legs"]) for run in often) > 1
    assert not any(leg["not_bit_for_bit"] for run in often for leg in run["legs"])


def test_without_time_nothing_is_begun(tmp_path):
    assert not session(tmp_path, benchmark_config()).run_pending(0)
    assert not (tmp_path / "quality.json").exists()
    assert not (tmp_path / "quality").exists()


def test_photographs_that_are_too_small_are_refused_before_the_training(tmp_path):
    # They have 24 x 27 pixels.
    with pytest.raises(exda.ImageError, match="24 x 27 pixels, too few for the middle 25 x 25"):
        session(tmp_path, benchmark_config(crop=25)).run_pending(math.inf)
    assert not (tmp_path / "quality").exists()
    assert session(tmp_path, benchmark_config(crop=24)).run_pending(math.inf)


def test_finished_runs_are_not_repeated(tmp_path):
    assert session(tmp_path, benchmark_config()).run_pending(math.inf)
    before = (tmp_path / "quality.json").read_bytes()
    again = session(tmp_path, benchmark_config())
    assert again.missing() == []
    assert again.run_pending(math.inf)
    assert (tmp_path / "quality.json").read_bytes() == before


def test_seeds_can_be_added_later(tmp_path):
    assert session(tmp_path, benchmark_config()).run_pending(math.inf)
    more = session(tmp_path, benchmark_config(Study(SETTING, (HOST,), (0, 1))))
    assert [job.seed for job in more.missing()] == [1]
    assert more.run_pending(math.inf)
    assert read_result(tmp_path)["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"learning_rate": 2e-3}}, "another config .recipe"),
        ({"crop": None}, "another config .test"),
        ({"name": "other"}, "another config .form"),
    ],
)
def test_another_form_is_refused(tmp_path, changes, message):
    assert session(tmp_path, benchmark_config()).run_pending(math.inf)
    before = (tmp_path / "quality.json").read_bytes()
    with pytest.raises(exda.ConfigError, match=message):
        session(tmp_path, benchmark_config(**changes))
    assert (tmp_path / "quality.json").read_bytes() == before


def test_other_images_are_refused(tmp_path):
    assert session(tmp_path, benchmark_config()).run_pending(math.inf)
    sources(tmp_path, seed=1)
    with pytest.raises(exda.ConfigError, match=r"another config .pictures"):
        session(tmp_path, benchmark_config())


def test_another_machine_is_refused(tmp_path):
    assert session(tmp_path, benchmark_config()).run_pending(math.inf)
    result = read_result(tmp_path)
    result["machine"]["cpu"] = "another"
    (tmp_path / "quality.json").write_text(json.dumps(result))
    with pytest.raises(exda.ConfigError, match=r"another machine .cpu"):
        session(tmp_path, benchmark_config())


def test_a_setting_whose_changes_differ_is_refused(tmp_path):
    rate = Setting("rate", "", {"recipe": {"learning_rate": 1e-4}})
    assert session(tmp_path, benchmark_config(Study(rate, (HOST,), (0,)))).run_pending(math.inf)
    before = (tmp_path / "quality.json").read_bytes()
    other = dataclasses.replace(rate, training={"recipe": {"learning_rate": 1e-5}})
    with pytest.raises(exda.ConfigError, match=r"rate-steps-host-seed0 was done with .*0\.0001.*1e-05.*another name"):
        session(tmp_path, benchmark_config(Study(other, (HOST,), (0,)))).run_pending(math.inf)
    assert (tmp_path / "quality.json").read_bytes() == before


def test_a_half_trained_run_of_another_recipe_is_refused(tmp_path):
    assert not session(tmp_path, benchmark_config()).run_pending(1.5, Clock())
    before = {path.name: path.read_bytes() for path in (tmp_path / "quality" / "base-steps-host-seed0").iterdir()}
    with pytest.raises(exda.ConfigError, match=r"recipe\.steps was 3, is 4"):
        session(tmp_path, benchmark_config(recipe={"steps": 4})).run_pending(math.inf)
    after = {path.name: path.read_bytes() for path in (tmp_path / "quality" / "base-steps-host-seed0").iterdir()}
    assert after == before
    assert not (tmp_path / "quality.json").exists()


def test_equal_time_gives_fewer_steps_by_a_pace_measured_once(tmp_path, monkeypatch):
    asked = []

    def measured(configs, accelerator):
        asked.append((list(configs), accelerator))
        return {"clock": "a test", "host_seconds": 1.0, "ratio": {HOST: 1.0, "both, paper": 1.4, "tokens": 4.0}}

    monkeypatch.setattr(module, "pace", measured)
    config = benchmark_config(Study(SETTING, ("both, paper", "tokens"), (0, 1), "time"))
    assert not session(tmp_path, config).run_pending(4.5, Clock())
    assert session(tmp_path, config).run_pending(math.inf)
    assert asked == [([HOST, "both, paper", "tokens"], "cpu")]
    # In the time of the host's 3 steps: 3 / 1.4 = 2, and 3 / 4, which is raised to one.
    assert [run["steps"] for run in read_result(tmp_path)["runs"]] == [2, 1, 2, 1]
    assert read_result(tmp_path)["paces"][BASE]["ratio"]["tokens"] == 4.0


def test_sessions_side_by_side_share_the_runs(tmp_path):
    config = benchmark_config(Study(SETTING, (HOST, "tokens"), (0, 1)))
    first, second = session(tmp_path, config), session(tmp_path, config)
    names = [job.name for job in config.jobs()]
    # As if the first one was at work on two runs.
    with FileLock(tmp_path / "quality" / "locks" / names[0]), FileLock(tmp_path / "quality" / "locks" / names[2]):
        assert not second.run_pending(math.inf)
    assert [run["name"] for run in read_result(tmp_path)["runs"]] == [names[1], names[3]]
    before = [run["legs"] for run in read_result(tmp_path)["runs"]]
    assert first.run_pending(math.inf)
    result = read_result(tmp_path)
    assert [run["name"] for run in result["runs"]] == [names[1], names[3], names[0], names[2]]
    assert [run["legs"] for run in result["runs"]][:2] == before
    assert result["seeds"] == [0, 1]
    assert second.run_pending(math.inf)
    assert read_result(tmp_path) == result


def test_what_another_session_has_measured_is_not_measured_again(tmp_path, monkeypatch):
    asked = []

    def measured(configs, accelerator):
        asked.append(list(configs))
        return {"ratio": dict.fromkeys(configs, float(len(asked)))}

    monkeypatch.setattr(module, "pace", measured)
    config = benchmark_config(Study(SETTING, ("tokens", "value"), (0,), "time"))
    first, second = session(tmp_path, config), session(tmp_path, config)
    assert not first.run_pending(1.5, Clock())
    assert second.run_pending(math.inf)
    assert asked == [[HOST, "tokens", "value"]]


def test_a_run_that_diverges_is_a_result(tmp_path):
    wild = Setting("rate", "", {"recipe": {"learning_rate": 1e30, "clip": 1.0}})
    config = benchmark_config(Study(wild, (HOST,), (0,)), Study(SETTING, (HOST,), (0,)))
    assert session(tmp_path, config).run_pending(math.inf)
    diverged, sound = read_result(tmp_path)["runs"]
    assert "the loss is nan" in diverged["diverged"]
    assert str(tmp_path) not in diverged["diverged"]
    assert diverged["scores"] is None
    assert sound["diverged"] is None


def test_forms_name_each_job_once():
    for config in FORMS.values():
        names = [job.name for job in config.jobs()]
        assert len(names) == len(set(names)) > 0
        # All arms of the base's first seed come before its second seed.
        arms = config.studies[0].arms
        assert [(job.arm, job.seed) for job in list(config.jobs())[: len(arms)]] == [(arm, 0) for arm in arms]
        assert arms[0] == HOST
