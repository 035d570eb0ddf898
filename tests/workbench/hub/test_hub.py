"""Folders and repositories of the Hub, without network access."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard, PyTorchModelHubMixin
from huggingface_hub import errors as hub_errors
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.patching.models import image
from torch import nn
from typer.testing import CliRunner

import exda_primitives as exda
from exda_primitives import hub
from exda_primitives.checkpoints.io import read_safetensors
from exda_primitives.cli import app

SMALL = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
NETWORKS = {
    "restormer": lambda: exda.models.Restormer(dim=8, **SMALL),
    "dual": lambda: exda.models.Restormer(dim=8, inp_channels=6, dual_pixel_task=True, **SMALL),
    "histoformer": lambda: exda.models.Histoformer(dim=12, ffn_expansion_factor=2, **SMALL),
    "amir": lambda: exda.models.AMIR(dim=8, **SMALL),
    "exda": lambda: exda.models.ExDA(dim=8, config=exda.ExDAConfig(tokens=2, init="paper"), **SMALL),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", refused)


def network(name: str = "restormer", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return NETWORKS[name]().eval()


def trained(model: nn.Module, **options: Any) -> nn.Module:
    exda.patch(model, **options)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


def change_config(folder: Path, **entries: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def saved(folder: Path, model: nn.Module | None = None, **options: Any) -> nn.Module:
    model = trained(network()) if model is None else model
    hub.save_pretrained(model, folder, license="mit", **options)
    return model


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_network_is_loaded_as_it_was_saved(name: str, patched: bool, tmp_path: Path) -> None:
    model = network(name)
    if patched and name != "exda":
        trained(model, tokens=2, include="decoder")
        trained(model, tokens="channels", reinject="channelwise", value="gelu", include="encoder_level1")
    saved(tmp_path / "a" / "b", model)
    found = hub.from_pretrained(tmp_path / "a" / "b")
    assert type(found) is type(model)
    assert not found.training
    assert exda.configs_of(found) == exda.configs_of(model) if exda.is_patched(model) else not exda.is_patched(found)
    x = image(32, 40, 2)
    x = torch.cat([x, x], 1)[:, : {"dual": 6, "amir": 1}.get(name, 3)]
    assert torch.equal(found(x), model(x))


@torch.no_grad()
def test_the_file_is_that_of_save(tmp_path: Path) -> None:
    model = saved(tmp_path / "hub")
    weights = tmp_path / "hub" / "model.safetensors"
    exda.save(model, tmp_path / "own.safetensors", whole=True)
    ours, own = read_safetensors(weights), read_safetensors(tmp_path / "own.safetensors")
    assert ours[1] == own[1]
    assert ours[0].keys() == own[0].keys()
    assert all(torch.equal(each, own[0][name]) for name, each in ours[0].items())
    x = image()
    assert torch.equal(exda.models.create(checkpoint=weights)(x), model(x))


def test_exda_restore_opens_it(tmp_path: Path) -> None:
    saved(tmp_path / "hub")
    Image.new("RGB", (24, 16), (90, 120, 30)).save(tmp_path / "in.png")
    files = [str(tmp_path / name) for name in ("in.png", "out.png", "hub/model.safetensors")]
    done = CliRunner().invoke(app, ["restore", "--device", "cpu", *files[:2], "--checkpoint", files[2]])
    assert done.exit_code == 0, done.output
    assert Image.open(tmp_path / "out.png").size == (24, 16)


@torch.no_grad()
def test_classes_with_the_mixin_are_saved_loaded_and_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in huggingface_hub's example of the mixin.
    class MyModel(exda.models.Restormer, PyTorchModelHubMixin, library_name="mine", repo_url="https://mine"):
        def __init__(self, dim: int = 48, tokens: int = 1) -> None:
            super().__init__(dim=dim, **SMALL)
            exda.patch(self, tokens=tokens)

    monkeypatch.chdir(tmp_path)
    model = MyModel(dim=8, tokens=2).eval()
    for parameter in exda.new_parameters(model):
        parameter.normal_()
    model.save_pretrained("my-awesome-model")
    assert json.loads(Path("my-awesome-model/config.json").read_text()) == {"dim": 8, "tokens": 2}
    found = MyModel.from_pretrained("my-awesome-model", strict=True)
    x, configs = image(), exda.configs_of(model)
    assert exda.configs_of(found) == configs
    assert torch.equal(found(x), model(x))
    # Without the class.
    alone = exda.models.create(checkpoint="my-awesome-model/model.safetensors")
    assert exda.configs_of(alone) == configs
    assert torch.equal(alone(x), model(x))
    api = Api()
    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", lambda token: api)
    assert model.push_to_hub("my-awesome-model") == "https://hub/me/my-awesome-model/commit/1"
    assert sorted(api.files) == ["README.md", "config.json", "model.safetensors"]
    assert b"https://mine" in api.files["README.md"]
    monkeypatch.setattr(
        huggingface_hub.hub_mixin, "hf_hub_download", lambda filename, **_: f"my-awesome-model/{filename}"
    )
    assert torch.equal(MyModel.from_pretrained("username/my-awesome-model")(x), model(x))


def test_the_mixin_says_that_a_later_patch_is_lost_only_if_strict(tmp_path: Path) -> None:
    class MyModel(exda.models.Restormer, PyTorchModelHubMixin):
        pass

    model = MyModel(dim=8, **SMALL)
    model.save_pretrained(tmp_path / "unpatched")
    loaded = MyModel.from_pretrained(tmp_path / "unpatched", strict=True)
    assert all(torch.equal(each, loaded.state_dict()[name]) for name, each in model.state_dict().items())
    trained(model).save_pretrained(tmp_path / "patched")
    with pytest.raises(RuntimeError, match=r"Unexpected key.*value\.conv_in"):
        MyModel.from_pretrained(tmp_path / "patched", strict=True)
    assert not exda.is_patched(MyModel.from_pretrained(tmp_path / "patched"))
    with pytest.raises(exda.CheckpointError, match=r"was not written by exda_primitives.*create\(checkpoint=FILE\)"):
        hub.from_pretrained(tmp_path / "patched")


@torch.no_grad()
def test_a_patch_alone(tmp_path: Path) -> None:
    model = saved(tmp_path, whole=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "exda.safetensors"]
    assert json.loads((tmp_path / "config.json").read_text())["host"].keys() == {"float32", "float16", "bfloat16"}
    host = network()
    found = hub.from_pretrained(tmp_path, into=host)
    x = image()
    assert found is host
    assert torch.equal(found(x), model(x))
    other = network(seed=1)
    with pytest.raises(exda.CheckpointError, match="trained on a host with other weights"):
        hub.from_pretrained(tmp_path, into=other)
    assert not exda.is_patched(other)
    assert exda.is_patched(hub.from_pretrained(tmp_path, into=other, any_host=True))
    with pytest.raises(exda.ConfigError, match=r"holds a patch for a restormer.*into=model"):
        hub.from_pretrained(tmp_path)


def test_an_unknown_network_is_saved_as_a_patch_alone(tmp_path: Path) -> None:
    model = trained(nn.Sequential(network(), nn.Conv2d(3, 3, 1)))
    with pytest.raises(exda.CheckpointError, match=r"no network that is known(.|\n)*whole=False"):
        saved(tmp_path / "whole", model)
    assert not (tmp_path / "whole").exists()
    saved(tmp_path / "patch", model, whole=False)
    assert json.loads((tmp_path / "patch" / "config.json").read_text())["architecture"] is None
    assert "## What was patched" in (tmp_path / "patch" / "README.md").read_text()
    with pytest.raises(exda.NotPatchedError):
        saved(tmp_path / "none", network(), whole=False)


@torch.no_grad()
def test_a_network_is_saved_without_its_wrapper(tmp_path: Path) -> None:
    model = trained(network())
    saved(tmp_path, nn.DataParallel(model))
    x = image()
    assert torch.equal(hub.from_pretrained(tmp_path)(x), model(x))


def test_arguments_that_the_weights_do_not_show_must_be_given(tmp_path: Path) -> None:
    model = exda.models.MoCEIR(dim=8, num_blocks=[1, 1, 1, 1], stage_depth=[1, 1, 1], topk=2)
    with pytest.raises(exda.ConfigError, match=r"routing\.topk is 2 in this MoCEIR, and 1 in the one.*arguments="):
        saved(tmp_path, model)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(exda.ConfigError, match="do not make this network"):
        saved(tmp_path, model, arguments={"top": 2})
    with pytest.raises(exda.ConfigError, match="make another network than this one"):
        saved(tmp_path, model, arguments={"topk": 2, "dim": 16})
    saved(tmp_path, model, arguments={"topk": 2})
    found = hub.from_pretrained(tmp_path)
    assert {module.topk for module in found.modules() if hasattr(module, "topk")} == {2}


def test_config_says_everything(tmp_path: Path) -> None:
    model = saved(tmp_path, trained(network(), tokens=2))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["library_name"], config["library_version"]) == ("exda_primitives", exda.__version__)
    assert (config["holds"], config["weights"], config["architecture"]) == ("network", "model.safetensors", "restormer")
    assert config["arguments"]["num_blocks"] == [1, 1, 1, 1]
    configs = exda.configs_of(model)
    assert {n: {"built_in": False, **c.as_dict()} for n, c in configs.items()} == config["attentions"]
    assert config["parameters"] == sum(each.numel() for each in model.parameters())
    assert config["added_parameters"] == sum(each.numel() for each in exda.new_parameters(model))
    assert config["dtype"] == "float32"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"config\.json: does not exist"),
        ("{", "cannot be read as JSON"),
        ("[]", "was not written by exda_primitives"),
        ('{"model_type": "bert"}', "was not written by exda_primitives"),
        ('{"library_name": "exda_primitives"}', "is damaged"),
    ],
)
def test_a_folder_without_a_config_of_this_library_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").unlink()
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(exda.CheckpointError, match=said):
        hub.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"config_version": 2}, "reads up to 1; upgrade"),
        ({"weights": "../model.safetensors"}, "is damaged"),
        ({"holds": "both"}, "is damaged"),
        ({"arguments": None}, "is damaged"),
        ({"arguments": {"dim": 16}}, "its arguments do not fit model.safetensors"),
        ({"arguments": {"width": 16}}, "its arguments do not fit model.safetensors"),
        ({"architecture": "promptir"}, "says promptir, the weights are of restormer"),
        ({"architecture": "mynet"}, "nobody registered here"),
        ({"attentions": {}}, r"encoder_level1\.0\.attn.*configured otherwise"),
        ({"attentions": {"latent.0.attn": {"tokens": 3, "built_in": False}}}, "configured otherwise"),
        ({"attentions": {"latent.0.attn": {"token": 3, "built_in": False}}}, "is damaged"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(entries: dict[str, Any], said: str, tmp_path: Path) -> None:
    saved(tmp_path)
    change_config(tmp_path, **entries)
    with pytest.raises(exda.CheckpointError, match=said):
        hub.from_pretrained(tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "patch", whole=False)
    saved(tmp_path / "other", trained(network(seed=1)), whole=False)
    file = tmp_path / "patch" / "exda.safetensors"
    file.write_bytes((tmp_path / "other" / "exda.safetensors").read_bytes())
    host = network()
    with pytest.raises(exda.CheckpointError, match="a patch for another host than the weights"):
        hub.from_pretrained(tmp_path / "patch", into=host)
    assert not exda.is_patched(host)
    file.unlink()
    with pytest.raises(exda.CheckpointError, match="does not exist"):
        hub.from_pretrained(tmp_path / "patch", into=host)
    saved(tmp_path / "whole")
    with pytest.raises(exda.ConfigError, match="leave into= out"):
        hub.from_pretrained(tmp_path / "whole", into=host)
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    save_file({name: each for name, each in tensors.items() if name != "output.weight"}, file)
    file.replace(tmp_path / "whole" / "model.safetensors")
    with pytest.raises(exda.CheckpointError, match=r"output\.weight"):
        hub.from_pretrained(tmp_path / "whole")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = network()
    model.output.weight.data[0] = torch.nan
    with pytest.raises(exda.CheckpointError, match="NaN"):
        saved(tmp_path, model)
    assert list(tmp_path.iterdir()) == []


def test_the_card(tmp_path: Path) -> None:
    figure = EvalResult("image-to-image", "rain100l", "Rain100L", "psnr", 38.5)
    data = {"base_model": "somebody/restormer", "datasets": ["rain"], "tags": ["derain"]}
    saved(tmp_path / "derain", results=[figure], card_data=data)
    card = ModelCard.load(tmp_path / "derain" / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "mit",
        "exda_primitives",
        "image-to-image",
    )
    assert (card.data.base_model, card.data.datasets, card.data.tags) == tuple(data.values())
    assert [(each.dataset_name, each.metric_value) for each in card.data.eval_results] == [("Rain100L", 38.5)]
    assert card.data.model_name == "derain"
    assert "tokens=1, stride=2" in card.text
    assert "| Rain100L | psnr | 38.5 |" in card.text
    assert 'hub.from_pretrained("derain")' in card.text


def test_an_existing_card_is_kept(tmp_path: Path) -> None:
    model = saved(tmp_path)
    path = tmp_path / "README.md"
    path.write_text(path.read_text() + "\nBy hand.\n")
    saved(tmp_path, model)
    assert "By hand." in path.read_text()
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(exda.ConfigError, match=r"license 'mit', where 'gpl-3\.0' was asked for"):
        hub.save_pretrained(model, tmp_path, license="gpl-3.0")
    with pytest.raises(exda.ConfigError, match="model-index None"):
        saved(tmp_path, model, results=[EvalResult("image-to-image", "a", "A", "psnr", 1.0)])
    with pytest.raises(exda.ConfigError, match="describes another model"):
        saved(tmp_path, model, whole=False)
    path.write_text("---\n- [\n---\n")
    with pytest.raises(exda.ConfigError, match="cannot be read as a model card"):
        saved(tmp_path, model)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("license", ["", "other"])
def test_a_missing_licence_is_refused(license: str, tmp_path: Path) -> None:
    with pytest.raises(exda.ConfigError, match="names no licence"):
        hub.save_pretrained(network(), tmp_path, license=license)
    hub.save_pretrained(network(), tmp_path, license="other", card_data={"license_name": "academic"})
    with pytest.raises(exda.ConfigError, match="card_data has 'license'"):
        saved(tmp_path, network(), card_data={"license": "mit"})


class Api:
    """Stands in for ``huggingface_hub.HfApi``."""

    def __init__(self, token: str | None = None, error: Exception | None = None) -> None:
        self.token, self.error, self.made, self.uploaded = token, error, {}, {}
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        self.made = {"repo_id": repo_id, **options}
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(self, folder_path: Path, **options: Any) -> str:
        if self.error:
            raise self.error
        self.files = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        self.uploaded = options
        return f"https://hub/{options['repo_id']}/commit/1"


def test_a_pushed_folder_can_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token: setattr(api, "token", token) or api)
    model = trained(network())
    url = hub.push_to_hub(
        model, "derain", license="mit", private=True, token="t", branch="b", ignore_patterns="x", commit_message="m"
    )
    assert url == "https://hub/me/derain/commit/1"
    assert api.token == "t"
    assert api.made == {"repo_id": "derain", "private": True, "exist_ok": True}
    assert api.uploaded == {
        "repo_id": "me/derain",
        "repo_type": "model",
        "commit_message": "m",
        "revision": "b",
        "create_pr": None,
        "ignore_patterns": "x",
    }
    assert sorted(api.files) == ["README.md", "config.json", "model.safetensors"]
    assert b'hub.from_pretrained("me/derain")' in api.files["README.md"]
    for name, data in api.files.items():
        (tmp_path / name).write_bytes(data)
    assert exda.configs_of(hub.from_pretrained(tmp_path)) == exda.configs_of(model)
    api.made.clear()
    with pytest.raises(exda.ConfigError, match="names no licence"):
        hub.push_to_hub(model, "derain", license="")
    assert not api.made
    api.error = OSError("no space left there")
    with pytest.raises(exda.HubError, match=r"'me/derain'\): the Hub was not reached, or refused: no space"):
        hub.push_to_hub(model, "derain", license="mit")


def test_push_without_a_network() -> None:
    with pytest.raises(exda.HubError, match=r"push_to_hub\('me/x'\): the Hub was not reached"):
        hub.push_to_hub(network(), "me/x", license="mit")


def test_from_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path)
    asked = []

    def download(repository: str, file: str, **options: Any) -> str:
        asked.append((repository, file, options))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    found = hub.from_pretrained("me/derain", revision="v1", token="t")
    assert exda.configs_of(found) == exda.configs_of(model)
    assert {file for _, file, _ in asked} == {"config.json", "model.safetensors"}
    assert all(each[0] == "me/derain" and each[2] == {"revision": "v1", "token": "t"} for each in asked)


@pytest.mark.parametrize("name", ["nobody/none", "derain"])
def test_a_repository_that_was_never_downloaded_without_a_network(name: str, tmp_path: Path) -> None:
    with pytest.raises(exda.HubError, match=r"no such folder.*HF_HUB_OFFLINE"):
        hub.from_pretrained(name, cache_dir=tmp_path)


def test_a_name_that_no_repository_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(exda.HubError, match="no such folder, and no repository can be called so"):
        hub.from_pretrained(tmp_path / "nothing" / "here")


# Stands in for the response of any HTTP client: nothing else of it is read.
RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("error", "expected", "said"),
    [
        (hub_errors.RepositoryNotFoundError("?", response=RESPONSE), exda.HubError, "no repository of that name"),
        (hub_errors.GatedRepoError("?", response=RESPONSE), exda.HubError, "is gated"),
        (hub_errors.RevisionNotFoundError("?", response=RESPONSE), exda.HubError, "has no revision 'v1'"),
        (hub_errors.RemoteEntryNotFoundError("?", response=RESPONSE), exda.CheckpointError, "has no config.json"),
        (hub_errors.HfHubHTTPError("down", response=RESPONSE), exda.HubError, "not reached, or refused: down"),
        (ConnectionError("no route"), exda.HubError, "not reached, or refused: no route"),
    ],
)
def test_errors_of_the_hub_are_explained(
    error: Exception, expected: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(expected, match=said):
        hub.from_pretrained("me/derain", revision="v1")


def test_files_written_and_read_by_huggingface_hubs_own_functions(tmp_path: Path) -> None:
    """As its documentation saves and loads PyTorch models, sharded or not."""
    model = trained(network(), tokens=2)
    huggingface_hub.save_torch_model(model, tmp_path)
    other = trained(network(seed=1), tokens=2)
    loaded = huggingface_hub.load_torch_model(other, tmp_path, strict=True)
    assert loaded.missing_keys == loaded.unexpected_keys == []
    x = image(16, 24, 1)
    assert torch.equal(other(x), model(x))
    other.load_state_dict(huggingface_hub.load_state_dict_from_file(tmp_path / "model.safetensors"))
    found = exda.models.create(checkpoint=tmp_path / "model.safetensors")
    assert exda.configs_of(found) == exda.configs_of(model)
    assert torch.equal(found.eval()(x), model(x))


FRESH = """
from exda_primitives import HubError, hub
for name in ("me/derain", "no folder"):
    try:
        hub.from_pretrained(name)
    except HubError as error:
        print(error)
"""


def test_a_fresh_process_explains_what_it_does_not_find(tmp_path: Path) -> None:
    """Here, where no test has imported a submodule of huggingface_hub."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FRESH]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert "from_pretrained('me/derain'): there is no such folder, config.json of a repository" in done.stdout
    assert "from_pretrained('no folder'): there is no such folder, and no repository can be called so" in done.stdout


def test_without_huggingface_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert exda.is_patched(hub.from_pretrained(tmp_path))
    for call in (
        lambda: saved(tmp_path),
        lambda: hub.from_pretrained("me/derain"),
        lambda: hub.push_to_hub(network(), "me/derain", license="mit"),
    ):
        with pytest.raises(exda.ExDAError, match=r"huggingface_hub cannot be imported.*pip install"):
            call()
