"""exda inspect."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.lifecycle.networks import trained
from tests.workbench.data.images import write_image
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app
from exda_primitives.cli.inspect import configuration
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.inspection import embeddings
from exda_primitives.workbench.inspection.images import degraded
from exda_primitives.workbench.inspection.table import printed
from exda_primitives.workbench.shared.files import fingerprint


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", "--device", "cpu", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(autouse=True)
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes UMAP look uninstalled: importing it takes longer than all of these tests."""
    monkeypatch.setitem(sys.modules, "umap", None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(4):
        write_image(folder / f"{index}.png", 36, 34, seed=index)
    return folder


def options(images: Path, out: Path) -> list[Any]:
    return ["--images", images, "--out", out, "--degrade", "noise50", "--degrade", "haze", "--size", 32, "--seeds", 2]


def test_attentions_are_recognised_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("exda_primitives.workbench.inspection.attentions")
    calls = []
    monkeypatch.setattr(module, "plan", lambda model: calls.append(model) or exda.plan(model))
    assert run("demo", *options(images, tmp_path / "out"), "--block", "latent").exit_code == 0
    assert len(calls) == 1


def test_an_inspection_of_the_demo_writes_all_its_files(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    result = run("demo", *options(images, out), "--block", "latent", "--block", "*_level3")
    assert result.exit_code == 0, result.output
    assert "umap.png was not drawn" in result.output
    blocks = ["encoder_level3.0.attn", "latent.0.attn", "decoder_level3.0.attn"]
    assert {path.name for path in (out / "tokens").iterdir()} == {f"{block}.png" for block in blocks}
    names = {"inspect.json", "inspect.md", "embeddings.npz", "clusters.png", "tsne.png", "tokens.png", "spectra.png"}
    assert {path.name for path in out.iterdir()} == names | {"tokens"}

    saved = json.loads((out / "inspect.json").read_text())
    assert saved["kind"] == "inspect"
    assert saved["seeds"] == [0, 1]
    assert {"torch", "commit", "cpu"} <= saved["machine"].keys()
    assert saved["config"]["labels"] == ["noise50", "haze"]
    assert saved["config"]["pictures"] == 8
    assert saved["config"]["images"] == images.name
    assert saved["config"]["images_sha256"] == fingerprint(images)
    assert saved["config"]["exda"]["tokens"] == 1
    assert saved["config"]["versions"]["scikit-learn"]
    clusters = [row for row in saved["runs"] if row["measure"] == "clusters"]
    assert [(row["of"], row["block"]) for row in clusters[::2]] == [
        (of, block) for of in ("outputs", "tokens") for block in ("all", *blocks)
    ]
    assert all(0 <= row["nmi"] <= 1 and -1 <= row["ari"] <= 1 for row in clusters)
    text = (out / "inspect.md").read_text()
    assert "latent.0.attn" in text
    assert "umap.png was not drawn" in text

    arrays = np.load(out / "embeddings.npz")
    assert arrays["labels"].tolist() == ["noise50"] * 4 + ["haze"] * 4
    labelled = degraded(opened(images), ["noise50", "haze"], 32, 0)
    network = patched_demo()
    expected = embeddings(network, labelled, "latent")["latent.0.attn"]
    # What else is collected at the same time does not change the embeddings.
    assert np.array_equal(arrays["outputs/latent.0.attn"], expected.numpy())

    before = {path: path.read_bytes() for path in out.glob("*.*")}
    again = run("demo", *options(images, out))
    assert again.exit_code == 1
    assert "exists and is not overwritten" in again.output
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before


def patched_demo() -> torch.nn.Module:
    from importlib import resources

    from safetensors.torch import load

    network = tiny_restormer()
    exda.patch(network)
    file = resources.files("exda_primitives.workbench.demo") / "data" / "exda.safetensors"
    network.load_state_dict(load(file.read_bytes()))
    return network


def opened(images: Path) -> Any:
    from exda_primitives.workbench.data import open_images

    return open_images(images)


def test_a_host_has_no_tokens(images: Path, tmp_path: Path) -> None:
    result = run("demo-host", *options(images, tmp_path / "out"), "--block", "latent")
    assert result.exit_code == 0, result.output
    assert "tokens.png was not drawn" in result.output
    assert not (tmp_path / "out" / "tokens").exists()
    saved = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert {(row["measure"], row["block"]) for row in saved["runs"]} == {
        ("clusters", "latent.0.attn"),
        ("spectrum", "latent.0.attn"),
    }
    asked = run("demo-host", *options(images, tmp_path / "other"), "--of", "tokens")
    assert asked.exit_code == 1
    assert "no ExDA attention with global spatial tokens" in asked.output
    assert not (tmp_path / "other").exists()


def test_the_configuration_of_the_primitives_in_a_result() -> None:
    network = tiny_restormer()
    assert configuration(network) is None
    exda.patch(network, tokens=2, include="encoder")
    assert configuration(network) == exda.ExDAConfig(tokens=2).as_dict()
    exda.patch(network, tokens=0, include="latent")
    said = configuration(network)
    assert said is not None
    assert {name.split("_")[0]: each["tokens"] for name, each in said.items()} == {"encoder": 2, "latent.0.attn": 0}
    built_in = exda.models.ExDA(dim=8, num_blocks=[1] * 4, num_refinement_blocks=1)
    assert configuration(built_in) == exda.ExDAConfig(init="paper").as_dict()


def test_selected_blocks_without_tokens_in_a_model_with_tokens(images: Path, tmp_path: Path) -> None:
    network = tiny_restormer()
    exda.patch(network, include="decoder")
    exda.save(network, tmp_path / "partly.safetensors", whole=True)
    result = run(tmp_path / "partly.safetensors", *options(images, tmp_path / "out"), "--block", "latent")
    assert result.exit_code == 0, result.output
    assert "tokens.png was not drawn" in result.output


def test_the_smallest_images(images: Path, tmp_path: Path) -> None:
    """The deepest maps have a few pixels, and the compact maps a single one."""
    out = tmp_path / "out"
    command = ["--images", images, "--out", out, "--degrade", "noise50", "--degrade", "haze", "--seeds", 1]
    blocks = ["--block", "latent", "--block", "decoder_level2"]
    result = run("demo", *command, "--size", 16, *blocks)
    assert result.exit_code == 0, result.output
    assert "tokens of latent.0.attn were not clustered: only 1 of the points are different" in result.output
    saved = json.loads((out / "inspect.json").read_text())
    clusters = {(row["of"], row["block"]) for row in saved["runs"] if row["measure"] == "clusters"}
    assert clusters == {
        ("outputs", "all"),
        ("outputs", "latent.0.attn"),
        ("outputs", "decoder_level2.0.attn"),
        ("tokens", "all"),
        ("tokens", "decoder_level2.0.attn"),
    }


def test_an_inspection_that_fails_can_be_repeated(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    failed = run("demo", *options(images, out), "--size", 16, "--block", "latent")
    assert failed.exit_code == 1
    assert "tokens of latent.0.attn were not clustered" in failed.output
    assert list(out.iterdir()) == []
    again = run("demo", *options(images, out), "--block", "latent", "--of", "outputs")
    assert again.exit_code == 0, again.output


def test_an_impossible_folder_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("demo", *options(images, tmp_path / "file" / "out"))
    assert result.exit_code == 1
    assert "cannot hold results" in result.output


def test_names_of_blocks_are_whole_on_a_narrow_terminal() -> None:
    runs = [
        {"measure": "clusters", "of": "outputs", "block": block, "features": 8, "seed": 0, "nmi": 0.5, "ari": 0.25}
        for block in ("encoder_level1.0.attn", "encoder_level1.1.attn")
    ]
    console = Console(width=50)
    with console.capture() as captured:
        console.print(printed({"runs": runs}))
    lines = [line.split("│") for line in captured.get().splitlines() if "│" in line]
    assert "".join(cells[2].strip() for cells in lines) == "encoder_level1.0.attnencoder_level1.1.attn"


def test_a_file_and_labels_from_folders(tmp_path: Path) -> None:
    exda.save(trained(), tmp_path / "whole.safetensors", whole=True)
    for index in range(3):
        for label in ("rain", "haze"):
            write_image(tmp_path / "images" / label / f"{index}.png", 16, 18, seed=index)
    command = ["--images", tmp_path / "images", "--out", tmp_path / "out", "--labels-from-folders", "--seeds", 1]
    result = run(tmp_path / "whole.safetensors", *command, "--of", "tokens", "--block", "refinement")
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert saved["config"]["labels"] == ["haze", "rain"]
    assert saved["config"]["labels_from"] == "folders"
    assert len(saved["config"]["model_sha256"]) == 64
    assert np.load(tmp_path / "out" / "embeddings.npz")["tokens/refinement.0.attn"].shape == (6, 16)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--degrade", "rian"], 1, "rian"),
        (["--degrade", "rain"], 1, "only rain"),
        (["--of", "gradients"], 2, "gradients"),
        (["--labels-from-folders"], 1, "lies in none"),
        (["--labels-from-folders", "--degrade", "rain"], 2, "either degraded or labelled"),
        (["--block", "nowhere"], 1, "nowhere"),
    ],
)
def test_bad_options_are_refused(images: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = run("demo", "--images", images, "--out", tmp_path / "out", "--size", 32, *arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    result = run("demo", "--images", tmp_path / "images", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no image" in result.output
    assert not (tmp_path / "out").exists()


def test_a_missing_checkpoint_is_refused(images: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "none.pth", "--images", images, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "none.pth" in result.output
