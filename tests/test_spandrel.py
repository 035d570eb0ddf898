"""The plug-in for spandrel, tested with spandrel's own loader."""

import subprocess
import sys
import warnings

import pytest
import torch
from tests.adapters.test_other_backbones import m3snet
from tests.patching.models import image

import exda_primitives as exda
from exda_primitives import spandrel as plugin

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spandrel
    import spandrel_extra_arches
    from spandrel.architectures.HVICIDNet import HVICIDNet
    from spandrel.architectures.KBNet import KBNet_l
    from spandrel.architectures.RetinexFormer import RetinexFormer
    from spandrel.architectures.SwinIR import SwinIR

SMALL = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
NETWORKS = {
    "restormer": lambda: exda.models.Restormer(dim=8, **SMALL),
    "grey": lambda: exda.models.Restormer(dim=8, inp_channels=1, out_channels=1, bias=True, **SMALL),
    "promptir": lambda: exda.models.PromptIR(**SMALL),
    "adair": lambda: exda.models.AdaIR(dim=8, **SMALL),
    "histoformer": lambda: exda.models.Histoformer(dim=12, ffn_expansion_factor=2, **SMALL),
    "amir": lambda: exda.models.AMIR(dim=8, **SMALL),
    "moceir": lambda: exda.models.MoCEIR(dim=8, num_blocks=[1, 1, 1, 1], stage_depth=[1, 1, 1]),
}
# Networks of spandrel, which this library cannot build by itself.
SWINIR = {"img_size": 16, "window_size": 8, "embed_dim": 12, "num_heads": [2], "depths": [2], "mlp_ratio": 2}
OF_SPANDREL = {
    "HVI-CIDNet": (lambda: HVICIDNet(channels=[12, 12, 24, 48]), {"tokens": 2}),
    "KBNet": (lambda: KBNet_l(dim=48, **SMALL), {"tokens": 1}),
    "RetinexFormer": (lambda: RetinexFormer(n_feat=8, stage=1, num_blocks=[1, 1, 1]), {"tokens": 2}),
    "SwinIR": (lambda: SwinIR(upscale=2, upsampler="pixelshuffle", **SWINIR), {"tokens": 0, "families": "window"}),
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
    torch.manual_seed(1)
    expected = model(x)
    # MoCE-IR draws random numbers.
    torch.manual_seed(1)
    assert torch.equal(found.model(x), expected)
    # spandrel pads images whose sides do not fit.
    assert found(x[..., :31, :37].clamp(0, 1)).shape == x[..., :31, :37].shape
    x = smallest(found)
    assert found.model(x).shape == x.shape


def smallest(found):
    """The smallest image that a descriptor's size requirements allow."""
    side = 1 + found.size_requirements.get_padding(1, 1)[0]
    return torch.rand(1, found.input_channels, side, side)


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


@pytest.mark.parametrize("name", OF_SPANDREL)
@torch.no_grad()
def test_patched_networks_of_spandrel_load(name, loader, tmp_path):
    make, options = OF_SPANDREL[name]
    host = make().eval()
    unpatched = loader.load_from_state_dict(host.state_dict())
    torch.manual_seed(0)
    exda.patch(host, **options)
    for parameter in exda.new_parameters(host):
        parameter.add_(torch.randn_like(parameter) / 10)
    exda.save(host, tmp_path / "whole.safetensors", whole=True)
    torch.save({"state_dict": {f"net.{key}": each for key, each in host.state_dict().items()}}, tmp_path / "model.ckpt")
    x = image(32, 48, 1)
    expected = host(x)
    for file in ("whole.safetensors", "model.ckpt"):
        found = loader.load_from_file(tmp_path / file).eval()
        assert exda.configs_of(found.model) == exda.configs_of(host)
        assert torch.equal(found.model(x), expected)
        assert found.architecture is unpatched.architecture
        assert (found.scale, found.purpose) == (unpatched.scale, unpatched.purpose)
        assert found.size_requirements == unpatched.size_requirements
        assert found.tags == [*unpatched.tags, f"{options['tokens']} tokens, value residual"]
        least = smallest(found)
        assert found.model(least).shape[2:] == (found.scale * least.shape[2],) * 2
        assert found.tiling == (spandrel.ModelTiling.DISCOURAGED if options["tokens"] else unpatched.tiling)


def test_patched_network_that_nobody_knows_is_refused(loader, tmp_path):
    model = patched_network(lambda: torch.nn.Sequential(NETWORKS["restormer"](), torch.nn.Conv2d(3, 3, 1)))
    exda.save(model, tmp_path / "whole.safetensors", whole=True)
    with pytest.raises(
        exda.CheckpointError,
        match=r"of no network that is known(.|\n)*nor can an architecture in spandrel.MAIN_REGISTRY load it",
    ):
        loader.load_from_file(tmp_path / "whole.safetensors")
    # spandrel recognises a SwinIR by its names, and fails to build it.
    make, options = OF_SPANDREL["SwinIR"]
    state = patched_network(make, **options).state_dict()
    state["layers.0.residual_group.blocks.0.attn.proj.weight"] = torch.zeros(1, 12)
    with pytest.raises(
        exda.CheckpointError,
        match=r"nor can an architecture in spandrel.MAIN_REGISTRY load it without ExDA \(RuntimeError: ",
    ):
        loader.load_from_state_dict(state)


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


@torch.no_grad()
def test_examples_of_spandrels_documentation_run(tmp_path):
    model = patched_network(NETWORKS["restormer"], tokens=2)
    torch.save({"params": model.state_dict()}, tmp_path / "model.pth")
    x = torch.rand(1, 3, 24, 31)
    # spandrel pads by reflection to sides that are multiples of 8.
    expected = model(torch.nn.functional.pad(x, (0, 1, 0, 0), "reflect"))[..., :31].clamp(0, 1)
    torch.save((x, expected), tmp_path / "images.pt")
    of_extra = patched_network(m3snet, tokens=1)
    torch.save(of_extra.state_dict(), tmp_path / "m3snet.pth")
    # As in spandrel's README, on the CPU, with one more package to install.
    program = """
from spandrel import ImageModelDescriptor, MAIN_REGISTRY, ModelLoader
import spandrel_extra_arches
import torch

from exda_primitives.spandrel import EXTRA_REGISTRY

MAIN_REGISTRY.add(*spandrel_extra_arches.EXTRA_REGISTRY)
MAIN_REGISTRY.add(*EXTRA_REGISTRY)

model = ModelLoader().load_from_file(r"model.pth")

assert isinstance(model, ImageModelDescriptor)

model.cpu().eval()

def process(image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(image)

image, expected = torch.load("images.pt")
torch.testing.assert_close(process(image), expected)
assert (model.architecture.name, model.dtype, model.device.type) == ("ExDA", torch.float32, "cpu")
assert model.bfloat16().dtype == torch.bfloat16
# One of spandrel_extra_arches, which are in MAIN_REGISTRY by now.
model = ModelLoader().load_from_file(r"m3snet.pth")
assert (model.architecture.name, model.tags[-1]) == ("M3SNet", "1 tokens, value residual")
print("restored")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "restored\n"


def test_missing_and_old_spandrel_are_errors_with_the_command():
    program = """
import sys, types
from exda_primitives.errors import ExDAError

# 0.3 had no way to say that an architecture is registered already.
old = types.ModuleType("spandrel")
for name in "MAIN_REGISTRY Architecture ArchRegistry ArchSupport ImageModelDescriptor ModelTiling".split():
    setattr(old, name, type(name, (), {}))
for spandrel in (None, old):
    sys.modules["spandrel"] = spandrel
    try:
        import exda_primitives.spandrel
    except ExDAError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    missing, old = done.stdout.splitlines()
    assert "spandrel cannot be imported" in missing
    assert "the spandrel here is too old (cannot import name 'DuplicateArchitectureError'" in old
    assert all(line.endswith('run: pip install "spandrel>=0.4"') for line in (missing, old))
