"""What goes on from a trained host, when it stops, and what is measured."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from benchmarks.continued.forms import EVERYTHING, FORMS, FROZEN, LORA, Search
from benchmarks.quality.forms import COMPARED, HOST, WIDENED, Study
from tests.benchmarks.continued.small import form, host, session
from tests.benchmarks.quality.small import SETTING, Clock

import exda_primitives as exda
from benchmarks.continued import session as module
from benchmarks.quality import session as base
from exda_primitives.workbench.training.state import read_checkpoint


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Neither plots of histories nor clocks."""
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)
    monkeypatch.setattr("exda_primitives.workbench.shared.machine.git_commit", lambda: "a commit")
    monkeypatch.setattr(module, "pace", lambda configs, accelerator, **more: {"ratio": dict.fromkeys(configs, 1.0)})


def held(folder, name="continued"):
    return json.loads((folder / f"{name}.json").read_text())


KINDS = (HOST, WIDENED, COMPARED, "frozen, norms", "frozen, half both, half LoRA")
"""An arm of each kind."""


def test_every_kind_of_arm_starts_from_the_host(tmp_path, monkeypatch):
    told = form(tmp_path, Study(SETTING, KINDS, (0,)), keeps=True)
    one = session(tmp_path, told)
    monkeypatch.setattr(one, "rate", lambda arm: 1e-4 if arm in FROZEN else 1e-3)
    assert one.run_pending(math.inf)
    result = held(tmp_path)
    runs = {run["arm"]: run for run in result["runs"]}
    assert tuple(runs) == KINDS
    for arm, run in runs.items():
        everything = arm in EVERYTHING
        assert (run["trained_parameters"] == run["parameters"]) is everything
        # Of norms nothing can be taken out.
        assert run["given_back"] is (arm == "frozen, half both, half LoRA"), arm
        assert run["learning_rate"] == (1e-3 if everything else 1e-4)
        assert len(run["scores"]["noise25"]["psnr"]) == len(run["own"]["noise15"]["ssim"]) == 2
        assert run["bytes"] > 4 * run["trained_parameters"]
    assert runs[HOST]["parameters"] == runs["frozen, norms"]["parameters"] < runs[COMPARED]["parameters"]
    assert set(result["untrained"]) == {"noise25", "noise15"}
    assert set(result["paces"]["ratio"]) == set(KINDS)
    assert str(tmp_path) not in (tmp_path / "continued.json").read_text()


def test_each_phase_of_the_host_is_kept_for_other_machines(tmp_path, monkeypatch):
    told = form(tmp_path)
    path = host(tmp_path, told)
    expected = path.read_bytes()
    first, last = told.host.phases
    kept = told.host.weights.with_name(f"{told.host.weights.stem}_{first.patch}.safetensors")
    assert kept.exists()
    assert kept.read_bytes() != expected
    told.host.weights.unlink()
    shutil.rmtree(tmp_path / "work")
    assert host(tmp_path, told).read_bytes() == expected
    assert not (tmp_path / "work" / first.name).exists()
    assert (tmp_path / "work" / last.name).exists()


def test_the_host_is_trained_once_and_given_to_the_next(tmp_path):
    told = form(tmp_path)
    path = host(tmp_path, told)
    last = read_checkpoint(tmp_path / "work" / "host-24" / "last.ckpt")
    assert last["config"]["model"]["checkpoint"] == str(tmp_path / "work" / "host-16" / "weights.safetensors")
    assert (last["step"], last["config"]["data"]["patch"]) == (2, 24)
    assert path.read_bytes() == told.host.weights.read_bytes()
    # Nobody trains it anew.
    assert host(tmp_path, told, "other").read_bytes() == path.read_bytes()
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["small.safetensors"]


def test_a_host_that_is_stopped_goes_on(tmp_path):
    told = form(tmp_path)
    assert host(tmp_path, told, is_over=lambda: True) is None
    assert not told.host.weights.exists()
    stopped = host(tmp_path, told).read_bytes()
    told.host.weights.unlink()
    assert host(tmp_path, told, "whole").read_bytes() == stopped


def test_a_host_without_a_file_of_its_own_stays_in_the_folder(tmp_path):
    given = form(tmp_path).host
    told = form(tmp_path, host=replace(given, weights=None))
    path = host(tmp_path, told)
    before = path.read_bytes()
    for phase in given.phases:
        shutil.rmtree(tmp_path / "work" / phase.name)
    assert host(tmp_path, told).read_bytes() == before
    assert not given.weights.exists()


def test_half_precision_and_processes_that_prepare_pairs(tmp_path):
    """As on a GPU."""
    data = {"degradations": ("noise25",), "patch": 16, "workers": 1}
    told = form(tmp_path, Study(SETTING, ("frozen, both",), (0,)), data=data, recipe={"precision": "bf16-mixed"})
    told = replace(told, crop=None, keeps=True, search=Search(100, 1, {"new": (1e-3,)}))
    assert session(tmp_path, told).run_pending(math.inf)
    run = held(tmp_path)["runs"][0]
    assert (run["given_back"], run["diverged"]) == (True, None)


def test_another_host_is_refused(tmp_path):
    told = form(tmp_path)
    assert session(tmp_path, told).run_pending(math.inf)
    net = exda.models.create("restormer", told.host.weights)
    with torch.no_grad():
        net.output.weight.add_(1)
    exda.checkpoints.io.write_safetensors(net.state_dict(), {}, told.host.weights)
    with pytest.raises(exda.ConfigError, match=r"another config .host"):
        session(tmp_path, told)


def test_the_rate_with_the_lowest_loss_is_taken(tmp_path, monkeypatch):
    losses = {(HOST, 1e-3): 0.2, (HOST, 1e-4): 0.3, (COMPARED, 1e-3): 0.5, (COMPARED, 1e-4): 0.1}
    rates = {"all": (1e-3, 1e-4)}
    each = session(tmp_path, form(tmp_path, search=Search(100, 1, rates)))
    together = session(tmp_path, form(tmp_path, search=Search(100, 1, rates, (HOST, COMPARED))), "together")
    for one in (each, together):
        monkeypatch.setattr(one, "_searched", lambda arm, rate: losses[arm, rate])
    assert (each.rate(HOST), each.rate(COMPARED)) == (1e-3, 1e-4)
    assert (together.rate(HOST), together.rate(COMPARED)) == (1e-4, 1e-4)


def test_a_rate_at_which_it_diverges_is_not_taken(tmp_path):
    told = form(tmp_path, search=Search(100, 2, {"all": (1e30, 1e-3)}))
    one = session(tmp_path, told)
    assert one.rate(HOST) == 1e-3
    assert held(tmp_path)["searched"][HOST]["1e+30"] is None
    assert not list((tmp_path / "work").glob("*rate*"))


def without_clocks(run):
    return {name: each for name, each in run.items() if name not in {"legs", "machine"}}


def test_stopped_in_the_middle_it_comes_to_the_same(tmp_path):
    arms, search = ("frozen, LoRA", HOST), Search(100, 1, {"all": (1e-3, 1e-4), "new": (1e-2,)})
    told = form(tmp_path, Study(SETTING, arms, (0,)), marks=(1, 2), search=search)
    assert session(tmp_path, told, "whole").run_pending(math.inf)
    turns = 0
    while not session(tmp_path, told, "often").run_pending(2.5, Clock()):
        turns += 1
        assert turns < 20
    assert turns >= 2
    whole, often = (held(tmp_path, name) for name in ("whole", "often"))
    assert list(map(without_clocks, often["runs"])) == list(map(without_clocks, whole["runs"]))
    assert often["searched"] == whole["searched"]
    first = whole["runs"][0]
    assert list(first["curve"]) == ["1", "2"]
    assert first["curve"]["1"] != first["curve"]["2"] != first["scores"]


def test_a_mark_that_was_missed_is_made_up_for(tmp_path, monkeypatch):
    told = form(tmp_path, marks=(1,))
    one = session(tmp_path, told)
    # Stopped after the checkpoint of the first step, and before anything else.
    monkeypatch.setattr(base, "deepcopy", lambda net: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        one.run_pending(math.inf)
    monkeypatch.undo()
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)
    monkeypatch.setattr("exda_primitives.workbench.shared.machine.git_commit", lambda: "a commit")
    assert session(tmp_path, told).run_pending(math.inf)
    made_up = held(tmp_path)["runs"][0]["curve"]
    monkeypatch.setattr(module, "pace", lambda configs, accelerator, **more: {"ratio": dict.fromkeys(configs, 1.0)})
    assert session(tmp_path, told, "whole").run_pending(math.inf)
    assert made_up == held(tmp_path, "whole")["runs"][0]["curve"]


def test_forms_name_each_job_once():
    for told in FORMS.values():
        names = [job.name for job in told.jobs()]
        assert len(names) == len(set(names)) > 0
        seeds = {job.seed for job in told.jobs()}
        assert told.search.seed not in seeds
        for step in told.marks:
            assert step % told.recipe["save_every"] == 0


def test_what_is_compared_is_there():
    for told in FORMS.values():
        for study in told.studies:
            assert HOST in study.arms
            assert LORA in study.arms or not set(study.arms) & set(FROZEN)
