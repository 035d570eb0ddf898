"""The file of an adaptation: what it holds, and loading it into the host."""

import copy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.patching.unchanged import unchanged
from torch import nn

import exda_primitives as exda
from exda_primitives.errors import CheckpointError, NotPatchedError
from exda_primitives.workbench.adaptation import load, save
from exda_primitives.workbench.training.config import LoraConfig
from exda_primitives.workbench.training.lora import add_lora, lora_parameters

SMALL = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 1}


def host(seed=0):
    torch.manual_seed(seed)
    return exda.models.Restormer(**SMALL).double().eval()


def adapted(*, primitives, lora):
    """A host with new parameters that are not zero."""
    net = host()
    if primitives:
        exda.patch(net, exda.ExDAConfig(init="paper"))
    if lora:
        add_lora(net, LoraConfig(2, "all"))
        with torch.no_grad():
            for parameter in lora_parameters(net).values():
                parameter.normal_(std=0.1)
    return net.eval()


@pytest.fixture
def image():
    return torch.rand(1, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def lora_file(tmp_path):
    path = tmp_path / "lora.safetensors"
    save(adapted(primitives=False, lora=True), path)
    return path


@pytest.mark.parametrize(("primitives", "lora"), [(True, False), (False, True), (True, True)])
def test_loaded_into_the_host_it_computes_what_was_trained(primitives, lora, image, tmp_path):
    trained = adapted(primitives=primitives, lora=lora)
    save(trained, tmp_path / "patch.safetensors")
    loaded = host()
    before = loaded(image)
    load(nn.DataParallel(loaded), tmp_path / "patch.safetensors")
    torch.testing.assert_close(loaded(image), trained(image))
    assert (loaded(image) - before).abs().max() > 1e-3
    assert exda.is_patched(loaded) is primitives
    names = {name.rpartition(".")[2] for name in load_file(tmp_path / "patch.safetensors")}
    assert ({"lora_A", "lora_B"} <= names) is lora
    # The host's own weights are not in it.
    assert not names & {"weight"} or primitives


def test_saving_leaves_the_network_as_it_is(image, tmp_path):
    net = adapted(primitives=True, lora=True)
    before = net(image)
    save(net, tmp_path / "patch.safetensors")
    assert torch.equal(net(image), before)
    assert lora_parameters(net)


def test_a_network_with_nothing_new_is_refused(tmp_path):
    with pytest.raises(NotPatchedError):
        save(host(), tmp_path / "patch.safetensors")


def test_another_host_is_refused_and_unchanged(lora_file):
    other = host(seed=1)
    state = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointError, match="trained on a host with other weights"):
        load(other, lora_file)
    assert all(torch.equal(state[name], each) for name, each in other.state_dict().items())
    load(other, lora_file, any_host=True)
    assert not torch.equal(state["output.weight"], other.state_dict()["output.weight"])


def rewritten(path, change):
    """Writes the file again with other tensors."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("output.lora_A"), "output lacks one of LoRA's two matrices"),
        (lambda held: held.update({"nowhere.lora_A": torch.ones(1, 1), "nowhere.lora_B": torch.ones(1, 1)}), "nowhere"),
        (lambda held: held.update({"output.lora_A": torch.ones(2, 5, 3, 3)}), r"do not fit its weight of shape \(3, 1"),
        (lambda held: held.update({"output.lora_A": held["output.lora_A"] * torch.nan}), "NaN"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(lora_file, change, message):
    rewritten(lora_file, change)
    net = host()
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load(net, lora_file)
    assert all(torch.equal(state[name], each) for name, each in net.state_dict().items())


def test_the_librarys_own_load_names_the_function_that_reads_it(lora_file):
    with pytest.raises(CheckpointError, match=r"exda_primitives\.adaptation\.load"):
        exda.load(host(), lora_file)


class Cached(nn.Module):
    """Computes a convolution's kernel when it is loaded."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 3, 1)
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def refresh(self):
        self.kernel = self.body.weight.detach().clone()

    def forward(self, x):
        return torch.nn.functional.conv2d(x, self.kernel, self.body.bias)


class Copying(nn.Sequential):
    """Its state dict shares no memory with it."""

    def state_dict(self, *arguments, **options):
        return {name: each.clone() for name, each in super().state_dict(*arguments, **options).items()}


@pytest.mark.parametrize("kind", [Cached, lambda: Copying(nn.Conv2d(3, 3, 1))], ids=["hook", "copying"])
def test_merged_weights_are_loaded_as_by_torch(kind, tmp_path):
    loaded, image = kind(), torch.rand(1, 3, 8, 8)
    trained = copy.deepcopy(loaded)
    add_lora(trained, LoraConfig(2, "all"))
    with torch.no_grad():
        for parameter in lora_parameters(trained).values():
            parameter.fill_(0.5)
    save(trained, tmp_path / "lora.safetensors")
    expected = copy.deepcopy(loaded)
    (layer,) = (module for module in expected.modules() if isinstance(module, nn.Conv2d))
    layer.weight.data += 0.5
    if kind is Cached:
        expected.refresh()
    load(loaded, tmp_path / "lora.safetensors")
    torch.testing.assert_close(loaded(image), expected(image))


def test_error_in_a_hook_changes_nothing(tmp_path):
    save(adapted(primitives=True, lora=True), tmp_path / "lora.safetensors")
    net = host()

    def refuse(*_):
        raise ValueError("not today")

    net.register_load_state_dict_post_hook(refuse)
    with unchanged(net, random_numbers=False), pytest.raises(CheckpointError, match=r"not today.*nothing was loaded"):
        load(net, tmp_path / "lora.safetensors")


def test_weights_without_values_are_refused(lora_file):
    net = host().to("meta")
    with unchanged(net), pytest.raises(CheckpointError, match=r"LoRA changes weights, and .* has none yet"):
        load(net, lora_file)
