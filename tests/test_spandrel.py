"""The plug-in for spandrel, tested with spandrel's own loader."""

import subprocess
import sys
import warnings

import pytest
import torch
from tests.patching.models import image

import exda_primitives as exda
from exda_primitives import spandrel as plugin

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spandrel
    import spandrel_extra_arches

SMALL = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
NETWORKS = {
    "restormer": lambda: exda.models.Restormer(dim=8, **SMALL),
    "grey": lambda: exda.models.Restormer(dim=8, inp_channels=1, out_channels=1, bias=True, **SMALL),
    "promptir": lambda: exda.models.PromptIR(**SMALL),
    "adair": lambda: exda.models.AdaIR(dim=8, **SMALL),
    "histoformer": lambda: exda.models.Histoformer(dim=12, ffn_expansion_factor=2, **SMALL),
    "amir": lambda: exda.models.AMIR(dim=8, **SMALL),
}


@pytest.fixture
def loader():
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(*spandrel_extra_arches.EXTRA_REGISTRY, ignore_duplicates=True)
    # Added after spandrel's own Restormer, which would accept these files, but asked before it.
    registry.add(*plugin.EXTRA_REGISTRY, ignore_duplicates=True)
    return spandrel.ModelLoader(registry=registry)


def patched_network(make, **options):
    torch.manual_seed(0)
    model = make().eval()
    exda.patch(model, **options)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_patched_networks_load(name, loader, tmp_path):
    model = patched_network(NETWORKS[name], tokens=2, include="decoder")
    exda.save(model, tmp_path / "whole.safetensors", whole=True)
    found = loader.load_from_file(tmp_path / "whole.safetensors")
    channels = 1 if name in ("grey", "amir") else 3
    assert (found.architecture.id, found.scale, found.purpose) == ("ExDA", 1, "Restoration")
    assert (found.input_channels, found.output_channels) == (channels, channels)
    assert exda.configs_of(found.model) == exda.configs_of(model)
    x = image(32, 40, 1)[:, :channels]
    assert torch.equal(found.model(x), model(x))
    # spandrel pads images whose sides do not fit.
    assert found(x[..., :31, :37].clamp(0, 1)).shape == x[..., :31, :37].shape


WRAPPINGS = {
    "BasicSR": ("model.pth", lambda state: {"params": state}),
    "Lightning": ("model.ckpt", lambda state: {"state_dict": {f"net.{name}": each for name, each in state.items()}}),
    "bare": ("model.pth", lambda state: state),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@torch.no_grad()
def test_files_of_trainers_load(wrapping, loader, tmp_path):
    model = patched_network(NETWORKS["restormer"], value="gelu", tokens=0)
    name, wrap = WRAPPINGS[wrapping]
    torch.save(wrap(model.state_dict()), tmp_path / name)
    found = loader.load_from_file(tmp_path / name)
    assert found.tags == ["restormer", "8dim", "0 tokens, value gelu"]
    x = image()
    assert torch.equal(found.model(x), model(x))


def test_unpatched_files_are_left_to_spandrel(loader, tmp_path):
    torch.save(NETWORKS["restormer"]().state_dict(), tmp_path / "model.pth")
    assert loader.load_from_file(tmp_path / "model.pth").architecture.id == "Restormer"


def test_file_of_new_parameters_alone_is_refused(loader, tmp_path):
    exda.save(patched_network(NETWORKS["restormer"]), tmp_path / "new.safetensors")
    with pytest.raises((exda.CheckpointError, spandrel.UnsupportedModelError)):
        loader.load_from_file(tmp_path / "new.safetensors")


def test_install_registers_once():
    program = """
import spandrel, exda_primitives.spandrel as plugin
assert [each.architecture.id for each in plugin.install()] == ["ExDA"]
assert plugin.install(ignore_duplicates=True) == []
try:
    plugin.install()
except spandrel.DuplicateArchitectureError:
    print("once")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"


def test_missing_spandrel_is_an_error_with_the_command():
    program = """
import sys
sys.modules["spandrel"] = None
from exda_primitives.errors import ExDAError
try:
    import exda_primitives.spandrel
except ExDAError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert "spandrel cannot be imported" in done.stdout
    assert "pip install" in done.stdout
