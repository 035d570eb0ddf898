"""The published checkpoints: their table in the documentation, and how a file is found by its name."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

import exda_primitives as exda
from exda_primitives.cli.networks import checkpoint_file
from exda_primitives.models.home import HASHES, checkpoint_by_name, home
from exda_primitives.models.published import PUBLISHED
from exda_primitives.workbench.restoration import Restorer

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
NAME = "restormer-deraining"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXDA_HOME", str(tmp_path))
    return tmp_path


def row(published):
    size = f"{published.parameters / 1e6:.2f} M"
    link = f"[{published.file}]({published.where})"
    return f"| `{published.name}` | {published.task} | {published.network} | {size} | {published.licence} | {link} |"


def test_page_lists_every_published_checkpoint():
    rows = re.findall(r"^\| `[\w-]+` \| .* \| \[.*$", PAGE.read_text(), re.MULTILINE)
    assert rows == [row(each) for each in PUBLISHED.values()]


def test_every_published_checkpoint_has_a_licence_and_an_address():
    for name, each in PUBLISHED.items():
        assert name == each.name
        assert each.where.startswith("https://")
        assert each.licence
        assert each.network in exda.models.list_models()


def test_published_sizes_are_those_of_the_networks():
    counted = {}
    for each in PUBLISHED.values():
        of = (each.network, str(each.arguments))
        if of not in counted:
            with torch.device("meta"):
                network = exda.models.create(each.network, **each.arguments)
            counted[of] = sum(parameter.numel() for parameter in network.parameters())
        assert each.parameters == counted[of]


def test_restorer_refuses_a_network_of_six_channels():
    dual = PUBLISHED["restormer-dual-pixel-defocus-deblurring"]
    small = {"dim": 8, "num_blocks": [1] * 4, "num_refinement_blocks": 1}
    assert not dual.images
    with pytest.raises(exda.ImageError, match="6 channels"):
        Restorer(exda.models.create(dual.network, **(dict(dual.arguments) | small)))


@pytest.mark.parametrize("suffix", ["", ".pth", ".ckpt", ".safetensors"])
def test_file_is_found_by_its_name(folder, suffix):
    for name in (NAME, "my network"):
        (folder / f"{name}{suffix}").write_bytes(b"weights")
        assert checkpoint_by_name(name) == checkpoint_file(name) == folder / f"{name}{suffix}"


def test_existing_path_comes_before_a_name(folder, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (folder / "model.pth").write_bytes(b"one")
    (elsewhere / "model.pth").write_bytes(b"other")
    assert checkpoint_file("model.pth") == Path("model.pth")
    (elsewhere / "model.pth").unlink()
    assert checkpoint_file("model.pth") == folder / "model.pth"


def test_error_says_where_a_missing_checkpoint_is_published(folder):
    with pytest.raises(exda.CheckpointError) as caught:
        checkpoint_by_name(NAME)
    assert PUBLISHED[NAME].where in str(caught.value)
    assert str(folder / f"{NAME}.pth") in str(caught.value)
    assert checkpoint_by_name("nothing of that name") is None
    assert checkpoint_file("folder/file.pth") == Path("folder/file.pth")


def test_file_with_another_hash_is_refused(folder):
    (folder / f"{NAME}.pth").write_bytes(b"weights")
    right = hashlib.sha256(b"weights").hexdigest()
    for star in ("", "*"):
        (folder / HASHES).write_text(f"{right}  {star}{NAME}.pth\n\n{'0' * 64}  other.pth\n")
        assert checkpoint_by_name(NAME) == folder / f"{NAME}.pth"
    (folder / HASHES).write_text(f"{'0' * 64}  {NAME}.pth\n")
    with pytest.raises(exda.CheckpointError, match=rf"its SHA-256 is {right}, .*{HASHES} says 0{{64}}"):
        checkpoint_by_name(NAME)


def test_folder_defaults_to_dot_exda_in_home(monkeypatch):
    monkeypatch.delenv("EXDA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert home() == Path("/somewhere/.exda")
