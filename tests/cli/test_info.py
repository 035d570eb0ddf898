"""exda info."""

import re
from importlib import resources
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app


def info(path: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["info", str(path), *options], env={"COLUMNS": "200"})


def rows(result: Result) -> dict[str, str]:
    assert result.exit_code == 0, result.output
    return {name: text for name, _, text in (line.strip().partition("  ") for line in result.output.splitlines())}


def patched() -> torch.nn.Module:
    model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1])
    exda.patch(model, exda.ExDAConfig(tokens=2), include="decoder")
    return model


def test_a_network() -> None:
    shown = rows(info(Path(str(resources.files("exda_primitives.workbench.demo") / "data/host.safetensors"))))
    assert shown["tensors"].strip() == "98, 420,911 numbers, float32"
    assert shown["network"].strip() == "restormer"
    assert shown["dim"].strip() == "12"
    assert shown["ffn_expansion_factor"].strip() == "2.0"


def test_a_lightning_checkpoint_of_a_compiled_network(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    state = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], LayerNorm_type="BiasFree").half().state_dict()
    torch.save({"state_dict": {f"net._orig_mod.{name}": tensor for name, tensor in state.items()}}, path)
    shown = rows(info(path))
    assert shown["wrapping"].strip() == "state_dict"
    assert shown["prefix"].strip() == "net._orig_mod."
    assert shown["LayerNorm_type"].strip() == "BiasFree"
    assert shown["tensors"].endswith("float16")


@pytest.mark.parametrize("whole", [False, True])
def test_files_written_by_save(whole: bool, tmp_path: Path) -> None:
    path = tmp_path / "exda.safetensors"
    exda.save(patched(), path, whole=whole)
    shown = rows(info(path))
    assert re.match(r"\s*in 3 attentions \([^)]*\): ExDAConfig\(tokens=2, ", shown["ExDA"])
    assert shown["network"].strip().startswith("restormer" if whole else "none: the parameters that ExDA added")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_text("not a checkpoint")
    result = info(path)
    assert result.exit_code == 1
    assert str(path) in result.output
    assert "Traceback" not in result.output


def save_entries(path: Path, **entries: dict[str, torch.Tensor]) -> Path:
    torch.save(entries, path)
    return path


def test_a_file_of_a_patched_and_an_unpatched_network_needs_param_key(tmp_path: Path) -> None:
    model = patched()
    exda.unpatch(host := patched())
    path = save_entries(tmp_path / "net_g.pth", params=model.state_dict(), params_ema=host.state_dict())
    refused = info(path)
    assert refused.exit_code == 1
    assert "'params' is of a patched network" in refused.output
    assert "ExDA" in rows(info(path, "--param-key", "params"))
    assert "ExDA" not in rows(info(path, "--param-key", "params_ema"))


def test_a_file_without_configuration_needs_patched_with(tmp_path: Path) -> None:
    state = {name: each for name, each in patched().state_dict().items() if not name.endswith("_extra_state")}
    path = save_entries(tmp_path / "old.pth", params={**state, "leftover.weight": torch.zeros(1)})
    for given, why in (
        ([], "does not say with which configuration"),
        (["--patched-with", "tokens=2"], "has beside it leftover"),
        (["--patched-with", "token=2", "--ignore", "leftover*"], "no such keyword"),
        (["--patched-with", "tokens=3", "--ignore", "leftover*"], "does not fit its weights"),
    ):
        refused = info(path, *given)
        assert refused.exit_code == 1
        assert why in refused.output
    shown = rows(info(path, "--patched-with", "tokens=2,stride=4", "--ignore", "leftover*"))
    assert re.search(r"ExDAConfig\(tokens=2, stride=4", shown["ExDA"])
