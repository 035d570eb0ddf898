"""Training that continues from a trained host: starts, interruptions, learning rates and measurements."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from benchmarks.continued.configs import configuration
from benchmarks.continued.forms import EVERYTHING, FORMS, FROZEN, LORA, Search
from benchmarks.quality.forms import COMPARED, HOST, WIDENED, Setting, Study
from tests.benchmarks.continued.small import benchmark_config, host, session
from tests.benchmarks.quality.small import SETTING, Clock

import exda_primitives as exda
from benchmarks.continued import session as module
from benchmarks.quality import session as base
from exda_primitives.workbench.training.state import read_checkpoint


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Leaves out plots and the timing of arms, and fixes the commit."""
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)
    monkeypatch.setattr("exda_primitives.workbench.shared.machine.git_commit", lambda: "a commit")
    monkeypatch.setattr(module, "pace", lambda configs, accelerator, **more: {"ratio": dict.fromkeys(configs, 1.0)})


def read_result(folder, name="continued"):
    return json.loads((folder / f"{name}.json").read_text())


KINDS = (HOST, WIDENED, COMPARED, "frozen, norms", "frozen, half both, half LoRA")
"""An arm of each kind."""


def test_every_kind_of_arm_starts_from_the_host(tmp_path, monkeypatch):
    config = benchmark_config(tmp_path, Study(SETTING, KINDS, (0,)), keeps=True)
    one = session(tmp_path, config)
    monkeypatch.setattr(one, "rate", lambda arm: 1e-4 if arm in FROZEN else 1e-3)
    assert one.run_pending(math.inf)
    result = read_result(tmp_path)
    runs = {run["arm"]: run for run in result["runs"]}
    assert tuple(runs) == KINDS
    for arm, run in runs.items():
        everything = arm in EVERYTHING
        assert (run["trained_parameters"] == run["parameters"]) is everything
        # Only a patch on a frozen host can be removed to give the host back; trained norms are its own weights.
        assert run["given_back"] is (arm == "frozen, half both, half LoRA"), arm
        assert run["learning_rate"] == (1e-3 if everything else 1e-4)
        assert len(run["scores"]["noise25"]["psnr"]) == len(run["own"]["noise15"]["ssim"]) == 2
        assert run["bytes"] > 4 * run["trained_parameters"]
    assert runs[HOST]["parameters"] == runs["frozen, norms"]["parameters"] < runs[COMPARED]["parameters"]
    assert set(result["untrained"]) == {"noise25", "noise15"}
    assert set(result["paces"]["ratio"]) == set(KINDS)
    assert str(tmp_path) not in (tmp_path / "continued.json").read_text()


def test_settings_of_the_primitives_and_scores_of_tiles(tmp_path, monkeypatch):
    mean = Setting("mean", "tokens of mean 1", primitives={"scale": "mean"})
    config = benchmark_config(tmp_path, Study(mean, (HOST, COMPARED), (0,)), crop=None)
    one = session(tmp_path, config)
    told = [configuration(config, job, "crops", one.starts) for job in config.jobs()]
    assert [each.primitives and each.primitives.options.scale for each in told] == [None, "mean"]
    assert one.run_pending(math.inf)
    for run in read_result(tmp_path)["runs"]:
        # Photographs of more than the training patches' 16 pixels: tiles see less than the whole.
        assert run["tiled"].keys() == run["scores"].keys()
        assert run["tiled"] != run["scores"]


def test_each_phase_of_the_host_is_kept_for_other_machines(tmp_path, monkeypatch):
    config = benchmark_config(tmp_path)
    path = host(tmp_path, config)
    expected = path.read_bytes()
    first, last = config.host.phases
    kept = config.host.weights.with_name(f"{config.host.weights.stem}_{first.patch}.safetensors")
    assert kept.exists()
    assert kept.read_bytes() != expected
    config.host.weights.unlink()
    shutil.rmtree(tmp_path / "work")
    assert host(tmp_path, config).read_bytes() == expected
    assert not (tmp_path / "work" / first.name).exists()
    assert (tmp_path / "work" / last.name).exists()


def test_the_host_is_trained_once_and_reused(tmp_path):
    config = benchmark_config(tmp_path)
    path = host(tmp_path, config)
    last = read_checkpoint(tmp_path / "work" / "host-24" / "last.ckpt")
    assert last["config"]["model"]["checkpoint"] == str(tmp_path / "work" / "host-16" / "weights.safetensors")
    assert (last["step"], last["config"]["data"]["patch"]) == (2, 24)
    assert path.read_bytes() == config.host.weights.read_bytes()
    # Another session takes the file instead of training.
    assert host(tmp_path, config, "other").read_bytes() == path.read_bytes()
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["small.safetensors"]


def test_an_interrupted_host_resumes_bit_for_bit(tmp_path):
    config = benchmark_config(tmp_path)
    assert host(tmp_path, config, is_over=lambda: True) is None
    assert not config.host.weights.exists()
    stopped = host(tmp_path, config).read_bytes()
    config.host.weights.unlink()
    assert host(tmp_path, config, "whole").read_bytes() == stopped


def test_a_host_without_a_weights_file_is_kept_in_the_work_folder(tmp_path):
    given = benchmark_config(tmp_path).host
    config = benchmark_config(tmp_path, host=replace(given, weights=None))
    path = host(tmp_path, config)
    before = path.read_bytes()
    for phase in given.phases:
        shutil.rmtree(tmp_path / "work" / phase.name)
    assert host(tmp_path, config).read_bytes() == before
    assert not given.weights.exists()


def test_half_precision_with_worker_processes(tmp_path):
    """The settings of a training on a GPU: bfloat16, and a process that prepares the pairs."""
    data = {"degradations": ("noise25",), "patch": 16, "workers": 1}
    config = benchmark_config(
        tmp_path, Study(SETTING, ("frozen, both",), (0,)), data=data, recipe={"precision": "bf16-mixed"}
    )
    config = replace(config, crop=None, keeps=True, search=Search(100, 1, {"new": (1e-3,)}))
    assert session(tmp_path, config).run_pending(math.inf)
    run = read_result(tmp_path)["runs"][0]
    assert (run["given_back"], run["diverged"]) == (True, None)


def test_another_host_is_refused(tmp_path):
    config = benchmark_config(tmp_path)
    assert session(tmp_path, config).run_pending(math.inf)
    net = exda.models.create("restormer", config.host.weights)
    with torch.no_grad():
        net.output.weight.add_(1)
    exda.checkpoints.io.write_safetensors(net.state_dict(), {}, config.host.weights)
    with pytest.raises(exda.ConfigError, match=r"another config .host"):
        session(tmp_path, config)


def test_the_rate_with_the_lowest_loss_is_taken(tmp_path, monkeypatch):
    losses = {(HOST, 1e-3): 0.2, (HOST, 1e-4): 0.3, (COMPARED, 1e-3): 0.5, (COMPARED, 1e-4): 0.1}
    rates = {"all": (1e-3, 1e-4)}
    each = session(tmp_path, benchmark_config(tmp_path, search=Search(100, 1, rates)))
    together = session(tmp_path, benchmark_config(tmp_path, search=Search(100, 1, rates, (HOST, COMPARED))), "together")
    for one in (each, together):
        monkeypatch.setattr(one, "_searched", lambda arm, rate: losses[arm, rate])
    assert (each.rate(HOST), each.rate(COMPARED)) == (1e-3, 1e-4)
    assert (together.rate(HOST), together.rate(COMPARED)) == (1e-4, 1e-4)


def test_a_rate_that_diverges_is_not_taken(tmp_path):
    config = benchmark_config(tmp_path, search=Search(100, 2, {"all": (1e30, 1e-3)}))
    one = session(tmp_path, config)
    assert one.rate(HOST) == 1e-3
    assert read_result(tmp_path)["searched"][HOST]["1e+30"] is None
    assert not list((tmp_path / "work").glob("*rate*"))


def without_clocks(run):
    return {name: each for name, each in run.items() if name not in {"legs", "machine"}}


def test_interrupted_sessions_give_the_same_results(tmp_path):
    arms, search = ("frozen, LoRA", HOST), Search(100, 1, {"all": (1e-3, 1e-4), "new": (1e-2,)})
    config = benchmark_config(tmp_path, Study(SETTING, arms, (0,)), marks=(1, 2), search=search)
    assert session(tmp_path, config, "whole").run_pending(math.inf)
    turns = 0
    while not session(tmp_path, config, "often").run_pending(2.5, Clock()):
        turns += 1
        assert turns < 20
    assert turns >= 2
    whole, often = (read_result(tmp_path, name) for name in ("whole", "often"))
    assert list(map(without_clocks, often["runs"])) == list(map(without_clocks, whole["runs"]))
    assert often["searched"] == whole["searched"]
    first = whole["runs"][0]
    assert list(first["curve"]) == ["1", "2"]
    assert first["curve"]["1"] != first["curve"]["2"] != first["scores"]


def test_a_missed_mark_is_measured_on_resuming(tmp_path, monkeypatch):
    config = benchmark_config(tmp_path, marks=(1,))
    one = session(tmp_path, config)
    # Stopped after the checkpoint of the first step, and before anything else.
    monkeypatch.setattr(base, "deepcopy", lambda net: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        one.run_pending(math.inf)
    monkeypatch.undo()
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)
    monkeypatch.setattr("exda_primitives.workbench.shared.machine.git_commit", lambda: "a commit")
    assert session(tmp_path, config).run_pending(math.inf)
    caught_up = read_result(tmp_path)["runs"][0]["curve"]
    monkeypatch.setattr(module, "pace", lambda configs, accelerator, **more: {"ratio": dict.fromkeys(configs, 1.0)})
    assert session(tmp_path, config, "whole").run_pending(math.inf)
    assert caught_up == read_result(tmp_path, "whole")["runs"][0]["curve"]


def test_forms_name_each_job_once():
    for config in FORMS.values():
        names = [job.name for job in config.jobs()]
        assert len(names) == len(set(names)) > 0
        seeds = {job.seed for job in config.jobs()}
        assert config.search.seed not in seeds
        for step in config.marks:
            assert step % config.recipe["save_every"] == 0


def test_every_study_has_the_arms_that_it_is_compared_with():
    for config in FORMS.values():
        hosts = {(study.setting.name, seed) for study in config.studies if HOST in study.arms for seed in study.seeds}
        for study in config.studies:
            # Where only primitives differ, the base's hosts serve.
            own = study.setting.name if study.setting.training else "base"
            assert {(own, seed) for seed in study.seeds} <= hosts
            assert LORA in study.arms or not set(study.arms) & set(FROZEN)
