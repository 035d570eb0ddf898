"""Results of ``exda evaluate`` on a model card."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tests.workbench.evaluation.test_record import FOUND

import exda_primitives as exda
from exda_primitives import hub
from exda_primitives.workbench.evaluation import PROTOCOLS, ImageResult, Score
from exda_primitives.workbench.evaluation.record import Record, configuration


def network() -> torch.nn.Module:
    return exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)


def evaluated(folder: Path, model: torch.nn.Module, total: int = 3, found: list[ImageResult] = FOUND) -> Path:
    config = configuration(
        PROTOCOLS["promptir"],
        {"architecture": "restormer", "parameters": sum(each.numel() for each in model.parameters())},
        {"benchmark": None, "clean": "/home/somebody/photographs"},
        degradations=("rain", "noise15"),
        restoring={"device": "cpu", "tile": None, "precision": "torch.float32"},
        seed=0,
    )
    with Record(folder, config, "", total, None, command="exda evaluate", device=torch.device("cpu")) as record:
        for each in found:
            record.add(each)
    return folder / "evaluate.json"


def test_figures_are_on_the_card(tmp_path: Path) -> None:
    model = network()
    hub.save_pretrained(model, tmp_path / "hub", license="mit", results=evaluated(tmp_path / "out", model))
    text = (tmp_path / "hub" / "README.md").read_text()
    entries = {(each.dataset_config, each.metric_type): each.metric_value for each in ModelCard(text).data.eval_results}
    assert entries["rain", "psnr"] == 32.0
    assert entries["noise15", "ssim"] == 0.7
    assert len(entries) == 6
    assert "| rain | 2 | 32.00 | 0.8500 |" in text
    assert "photographs; by protocol promptir of `exda evaluate`, seed 0." in text
    # Folders of the machine that measured are in the result, but are not published.
    assert "/home" not in text


def test_infinite_figures_are_only_in_the_table(tmp_path: Path) -> None:
    model = network()
    found = [ImageResult("a", "rain", 32, 48, Score(float("inf"), 1.0), Score(20.0, 0.5), None)]
    hub.save_pretrained(model, tmp_path / "hub", license="mit", results=evaluated(tmp_path / "out", model, 1, found))
    text = (tmp_path / "hub" / "README.md").read_text()
    assert {each.metric_type for each in ModelCard(text).data.eval_results} == {"ssim"}
    assert "| rain | 1 | inf |" in text


def test_results_of_another_network_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    model = network()
    path = evaluated(tmp_path / "out", model)
    exda.patch(model)

    def refused(said: str) -> None:
        with pytest.raises(exda.ConfigError, match=said):
            hub.save_pretrained(model, tmp_path / "hub", license="mit", results=[path])
        assert not (tmp_path / "hub").exists()

    refused("was measured with a restormer of .* parameters, this network is a restormer of")
    exda.unpatch(model)
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"missing": 2}))
    refused("lacks 2 images")
    path.write_text(json.dumps(result | {"runs": [{}]}))
    refused("is damaged")
    path.write_text("{}")
    refused("is no result of this library")
    path.unlink()
    refused("cannot be read")
