"""The default method, and what the page says of the methods, are what the adaptation benchmark found."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from exda_primitives.workbench.adaptation import METHODS, Asked
from exda_primitives.workbench.adaptation.settings import configuration

ARMS = {"lora": "frozen, LoRA everywhere", "exda": "frozen, both"}
"""Method -> the benchmark's arm with the same parameters, if there is one."""


@pytest.fixture(scope="module")
def result():
    path = Path(__file__).parents[3] / "benchmarks" / "results" / "adaptation.json"
    return json.loads(path.read_text())


def psnr(result, arm):
    return fmean(
        fmean(run["scores"]["low"]["psnr"]) for run in result["runs"] if (run["setting"], run["arm"]) == ("low", arm)
    )


def test_the_default_restored_best_with_the_host_frozen(result):
    frozen = {run["arm"] for run in result["runs"] if run["setting"] == "low" and run["arm"].startswith("frozen")}
    assert max(frozen, key=lambda arm: psnr(result, arm)) == ARMS[Asked(Path(), Path(), ("low",)).method]
    assert psnr(result, "frozen, LoRA") > psnr(result, ARMS["exda"])


@pytest.mark.parametrize("method", ARMS)
def test_the_rates_that_are_tried_have_the_best_of_the_benchmark(result, method):
    losses = result["searched"][ARMS[method]]
    best = min((rate for rate in losses if losses[rate] is not None), key=losses.__getitem__)
    assert float(best) in METHODS[method].rates


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_training_configuration(method):
    config = configuration(Asked(Path("net.pth"), Path("clean"), ("low",), method=method), 3, "cpu", None)
    assert ("lora" if config.primitives is None else "exda" if config.lora is None else "both") == method
    assert (config.recipe.train, config.data.held_out) == ("new", 3)
