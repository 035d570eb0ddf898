"""exda.save and exda.load: what was saved is restored, and a file that does not fit changes nothing."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.patching.unchanged import unchanged

import exda_primitives as exda

CONFIG = exda.ExDAConfig(tokens=2, scale="mean")


def restormer(seed: int = 0) -> exda.models.Restormer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()


def trained(**selection: str) -> exda.models.Restormer:
    model = restormer()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(2)
        exda.patch(model, CONFIG, **selection)
        for parameter in exda.new_parameters(model):
            parameter.add_(0.1)
    return model


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    exda.save(trained(), tmp_path / "exda.safetensors")
    return tmp_path / "exda.safetensors"


def test_load_patches_an_unpatched_model(file: Path, image: torch.Tensor) -> None:
    model = restormer()
    exda.load(model, file)
    assert exda.config_of(model) == CONFIG
    assert torch.equal(model(image), trained()(image))


def test_load_fills_a_patched_model(file: Path, image: torch.Tensor) -> None:
    model = restormer()
    exda.patch(model, CONFIG)
    exda.load(model, file)
    assert torch.equal(model(image), trained()(image))


def test_only_a_whole_file_replaces_the_hosts_weights(tmp_path: Path, image: torch.Tensor) -> None:
    model, path = trained(), tmp_path / "whole.safetensors"
    exda.save(model, path, whole=True)
    other = restormer(seed=1)
    exda.load(other, path)
    assert torch.equal(other(image), model(image))
    exda.save(model, path)
    third = restormer(seed=1)
    exda.load(third, path, any_host=True)
    assert not torch.equal(third(image), model(image))


def test_load_patches_only_the_saved_attentions(tmp_path: Path) -> None:
    model, path = trained(include="decoder"), tmp_path / "decoder.safetensors"
    exda.save(model, path)
    other = restormer()
    exda.load(other, path)
    assert [n for n, m in other.named_modules() if isinstance(m, exda.ExDAModule)] == [
        n for n, m in model.named_modules() if isinstance(m, exda.ExDAModule)
    ]


def test_file_holds_the_new_parameters_and_a_readable_header(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        header, names = opened.metadata(), set(opened.keys())
    attentions = {match.name for match in exda.plan(restormer(), CONFIG).matches}
    states = {f"{name}._extra_state" for name in attentions}
    assert names == set(exda.plan(restormer(), CONFIG).new_parameters) | states
    assert json.loads(header["attentions"]) == dict.fromkeys(attentions, CONFIG.as_dict())
    assert header["version"] == "2"


def test_load_keeps_the_models_dtype(file: Path) -> None:
    model = restormer().bfloat16()
    exda.load(model, file)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_shared_attention_is_shared_after_load(tmp_path: Path) -> None:
    def shared() -> torch.nn.Sequential:
        block = restormer().latent[0]
        return torch.nn.Sequential(block, block)

    model, path = shared(), tmp_path / "shared.safetensors"
    exda.patch(model)
    exda.save(model, path, whole=True)
    other = shared()
    exda.load(other, path)
    assert other[0].attn is other[1].attn
    assert isinstance(other[0].attn, exda.ExDAModule)


def test_load_patches_inside_a_compiled_model(file: Path, image: torch.Tensor) -> None:
    model = torch.compile(restormer(), backend="eager")
    exda.load(model, file)
    # A graph for all sizes multiplies in another order than the model does for a small map.
    torch.testing.assert_close(model(image), trained()(image), rtol=0, atol=1e-5)


def test_save_refuses_an_unpatched_model() -> None:
    with pytest.raises(exda.NotPatchedError):
        exda.save(restormer(), "never-written.safetensors")
    assert not Path("never-written.safetensors").exists()


def test_load_refuses_a_model_with_another_configuration(file: Path) -> None:
    model = restormer()
    exda.patch(model)
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError):
        exda.load(model, file)


def test_load_refuses_a_model_without_the_attentions(file: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))
    with unchanged(model), pytest.raises(exda.ExDAError):
        exda.load(model, file)


def test_load_refuses_a_model_with_more_patched_attentions(tmp_path: Path) -> None:
    path = tmp_path / "decoder.safetensors"
    exda.save(trained(include="decoder"), path)
    model = trained()
    with unchanged(model), pytest.raises(exda.CheckpointError, match="3 ExDA attentions"):
        exda.load(model, path)


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **header: str) -> None:
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(load_file(path) if tensors is None else tensors, path, metadata | header)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "other"}, "not written by exda.save"),
        ({"version": "3"}, "upgrade"),
        ({"version": "one"}, "header is damaged"),
        ({"whole": "{"}, "header is damaged"),
        ({"host": "17"}, "header is damaged"),
    ],
    ids=lambda given: str(given)[:30],
)
def test_damaged_or_unknown_header_is_refused(file: Path, header: dict[str, str], message: str) -> None:
    rewrite(file, **header)
    model = restormer()
    with unchanged(model), pytest.raises(exda.CheckpointError, match=message):
        exda.load(model, file)


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape", "dtype"])
def test_tensors_that_do_not_fit_are_refused(file: Path, damage: str) -> None:
    tensors = load_file(file)
    name = "decoder_level1.0.attn.alpha"
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        tensors["something.else"] = torch.zeros(1)
    elif damage == "shape":
        tensors[name] = torch.zeros(7, 7)
    else:
        tensors[name] = tensors[name].long()
    rewrite(file, tensors)
    model = restormer()
    # Building the new parameters, which are then thrown away, draws random numbers.
    named = "something.else" if damage == "unexpected" else re.escape(name)
    with unchanged(model, random_numbers=False), pytest.raises(exda.CheckpointError, match=named):
        exda.load(model, file)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_truncated_file_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    model = restormer()
    with unchanged(model), pytest.raises(exda.CheckpointError, match="whole safetensors"):
        exda.load(model, file)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(exda.CheckpointError, match=message):
            exda.load(restormer(), path)


def test_failed_save_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exda_primitives.checkpoints.io.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        exda.save(trained(), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("name", ["exda.pth", "exda", "exda.ckpt"])
def test_file_may_have_any_name(name: str, tmp_path: Path) -> None:
    model = restormer()
    exda.patch(model)
    exda.save(model, tmp_path / name)
    other = restormer()
    exda.load(other, tmp_path / name)
    assert exda.config_of(other) == exda.config_of(model)
