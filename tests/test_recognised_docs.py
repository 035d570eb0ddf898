"""The page of recognised networks shows what the benchmark found, and a few of its rows are checked again."""

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "recognised.json").read_text())


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("recognised")


def test_page_is_the_rendered_result(benchmark):
    assert (ROOT / "docs" / "recognised.md").read_text() == benchmark.render(RESULT)


def test_result_file_has_the_written_format(benchmark):
    assert (ROOT / "benchmarks" / "results" / "recognised.json").read_text() == benchmark.dumps(RESULT)


def test_every_network_is_on_the_page():
    page = (ROOT / "docs" / "recognised.md").read_text()
    assert f"about {len(RESULT['models'])} networks" in page
    for row in RESULT["models"]:
        assert re.search(rf"[|,.:] {row['model'] if 'error' in row else row['group']}[ ,.]", page), row
    outcomes = [row.keys() & {"parameters", "error"} for row in RESULT["models"]]
    assert all(len(outcome) == 1 for outcome in outcomes)


@pytest.mark.parametrize(
    ("package", "model", "recognised", "backbone"),
    [
        ("spandrel", "KBNet_l", {"mdta": 44}, "kbnet"),
        ("spandrel", "HVICIDNet", {"cross": 12}, "hvicidnet"),
        ("spandrel_extra_arches", "Restormer", {"mdta": 44}, "restormer"),
        ("spandrel_extra_arches", "M3SNet", {"mdta": 1}, "m3snet"),
        ("spandrel", "OmniSR", None, None),
        ("spandrel", "RetinexFormer", {"igmsa": 15}, None),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_rows_hold_today(benchmark, package, model, recognised, backbone):
    (network,) = [each for each in benchmark.networks(package) if each.name == model]
    row = json.loads(json.dumps(benchmark.examine(network)))
    (written,) = [each for each in RESULT["models"] if (each["package"], each["model"]) == (package, model)]
    assert (row.get("recognised"), row.get("backbone")) == (recognised, backbone)
    # Not the sizes, which a newer release of the package may have changed.
    compared = ("recognised", "backbone", "stages")
    assert [written.get(key) for key in compared] == [row.get(key) for key in compared]


def test_network_that_cannot_be_built_is_listed(benchmark):
    def make():
        raise TypeError("missing\n an argument | here")

    network = benchmark.Network("timm", "group", "broken", make)
    row = benchmark.examine(network)
    assert row == {
        "package": "timm",
        "group": "group",
        "model": "broken",
        "error": "TypeError: missing an argument | here",
    }
    page = benchmark.render(RESULT | {"models": [row]})
    assert "about 1 networks, 0 of which" in page
    assert r"| broken | timm | TypeError: missing an argument \| here |" in page
