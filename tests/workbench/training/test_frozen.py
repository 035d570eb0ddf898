"""A host that is frozen keeps its buffers: what was trained beside it fits the host that there is."""

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.registries import forget_afterwards
from tests.workbench.training.lora_hosts import Reading, TwoLayers, tied
from tests.workbench.training.runs import config, run
from torch import nn

import exda_primitives as exda
from exda_primitives import adaptation
from exda_primitives.models import create
from exda_primitives.models.architecture import Architecture, ArchitectureMismatch
from exda_primitives.workbench.training import prepare
from exda_primitives.workbench.training.build import build
from exda_primitives.workbench.training.run import trained_network

FROZEN = {"primitives": None, "lora": {"rank": 2, "layers": "all"}}


class WithNorms(nn.Module):
    """Has layers whose buffers move in train mode, and buffers of its own: a constant one and a cache."""

    def __init__(self):
        super().__init__()
        norms = (nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True))
        self.body = nn.Sequential(TwoLayers(), *norms, nn.utils.spectral_norm(nn.Conv2d(3, 3, 1)))
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("last", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.last = x.detach().mean()
        return self.body(x - self.mean) + self.mean


class Counting(TwoLayers):
    """Changes a buffer of its own in train mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return super().forward(x)


@pytest.fixture
def register(monkeypatch):
    """Registers a network under the name "ours"."""
    forget_afterwards(monkeypatch)

    def infer(shapes):
        raise ArchitectureMismatch("it is not told by its shapes")

    def registered(network):
        exda.register_adapter(Architecture(name="ours", build=network, infer=infer))
        return {"name": "ours", "arguments": {}}

    return registered


def test_norms_of_a_frozen_host_keep_their_statistics_and_the_file_fits_it(tmp_path, register):
    configuration = config(tmp_path, model=register(WithNorms), recipe={"train": "new", "ema": 0.5}, **FROZEN)
    host = build(configuration).net
    assert host.training
    assert not any(host.body[place].training for place in (1, 2, 3))
    host = build(config(tmp_path, model={"name": "ours", "arguments": {}}, primitives=None)).net.eval()
    plan = prepare(configuration, tmp_path / "out", accelerator="cpu")
    run(configuration, tmp_path / "out")
    net = trained_network(plan).eval()
    adaptation.save(net, tmp_path / "patch.safetensors")
    buffers = {name: each.clone() for name, each in host.state_dict().items() if "running" in name}
    assert len(buffers) == 4
    held = load_file(tmp_path / "out" / "weights.safetensors")
    assert all(torch.equal(held[name], each) for name, each in buffers.items())
    image = torch.rand(1, 3, 16, 16)
    before = host(image)
    adaptation.load(host, tmp_path / "patch.safetensors")
    torch.testing.assert_close(host(image), net(image))
    assert not torch.equal(host(image), before)
    whole = create("ours")
    whole.load_state_dict(held)
    torch.testing.assert_close(whole.eval()(image), net(image))


@pytest.mark.parametrize("train", ["all", "norms"])
def test_norms_of_a_host_that_is_trained_collect_statistics(tmp_path, register, train):
    configuration = config(tmp_path, model=register(WithNorms), primitives=None, recipe={"train": train})
    begin = build(configuration).net
    assert all(module.training for module in begin.modules())
    run(configuration, tmp_path / "out")
    held = load_file(tmp_path / "out" / "weights.safetensors")
    assert not torch.equal(held["body.1.running_mean"], begin.body[1].running_mean)


def test_other_buffers_that_move_are_refused_before_the_training(tmp_path, register):
    configuration = config(tmp_path, model=register(Counting), recipe={"train": "new"}, **FROZEN)
    with pytest.raises(exda.ConfigError, match=r"recipe.train: found 'new', .* but ours changes calls in train mode"):
        prepare(configuration, tmp_path / "out", accelerator="cpu")
    prepare(config(tmp_path, model={"name": "ours"}, **FROZEN), tmp_path / "out", accelerator="cpu")


def test_weights_that_are_read_are_refused_before_the_training(tmp_path, register):
    with pytest.raises(exda.ConfigError, match="Reading reads the weights of first"):
        prepare(config(tmp_path, model=register(Reading), **FROZEN), tmp_path / "out", accelerator="cpu")


def test_the_plan_names_the_layers_without_lora(tmp_path, register):
    model = register(lambda: nn.Sequential(tied(), nn.Conv2d(3, 3, 1)))
    configuration = config(tmp_path, model=model, recipe={"train": "new"}, **FROZEN)
    plan = prepare(configuration, tmp_path / "out", accelerator="cpu")
    console = Console(record=True, width=300)
    plan.print(console)
    reasons = "0.first (its weight is also 0.second.weight), 0.second (its weight is also 0.first.weight)"
    assert f"without LoRA  {reasons}" in console.export_text()
