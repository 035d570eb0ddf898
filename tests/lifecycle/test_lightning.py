"""A LightningModule that holds the network as ``net``, as the trainers of PromptIR and AdaIR do."""

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import exda_primitives as exda

from .networks import image, network

STEPS = 2
# Lightning itself uses what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


class Restoration(LightningModule):
    def __init__(self, seed=0):
        super().__init__()
        self.save_hyperparameters()
        self.net = network(seed=seed)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        degraded, clean = batch
        return nn.functional.l1_loss(self(degraded), clean)

    def configure_optimizers(self):
        ours = exda.new_parameters(self)
        known = {id(parameter) for parameter in ours}
        host = [p for p in self.parameters() if id(p) not in known and p.requires_grad]
        return torch.optim.AdamW([{"params": each} for each in (ours, host) if each], lr=1e-3)


@pytest.fixture
def fit(tmp_path):
    """Trains for two steps; returns the checkpoint."""

    def run(module):
        trainer = Trainer(
            max_steps=STEPS,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        pairs = TensorDataset(image(1, 16, 16, batch=4), image(2, 16, 16, batch=4))
        trainer.fit(module.train(), DataLoader(pairs, batch_size=2))
        assert trainer.global_step == STEPS
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return run


def patch_the_module(module):
    return exda.patch(module)


def patch_the_network(module):
    return exda.patch(module.net)


@pytest.fixture(params=[patch_the_module, patch_the_network], ids=lambda way: way.__name__)
def patch(request):
    return request.param


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "new-alone"])
def test_trains_all_parameters_or_only_the_new_ones(fit, patch, frozen):
    module = Restoration()
    patch(module)
    if frozen:
        module.requires_grad_(False)
        for parameter in exda.new_parameters(module):
            parameter.requires_grad_(True)
    ours = {id(parameter) for parameter in exda.new_parameters(module)}
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    fit(module)
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    started_at_zero = {name for name in before if name.endswith(("alpha", "token_gate", "conv_out.weight"))}
    assert started_at_zero <= moved
    is_host = {name for name, p in module.named_parameters() if id(p) not in ours}
    assert bool(moved & is_host) is not frozen


@torch.no_grad()
def test_checkpoint_loads_into_a_patched_network(fit, patch):
    module = Restoration()
    patch(module)
    path = fit(module)
    model = network(seed=5)
    exda.patch(model)
    exda.load_checkpoint(path, into=model)
    assert torch.equal(model(image()), module.net(image()))


@torch.no_grad()
def test_checkpoint_loads_into_another_module(fit, patch):
    module = Restoration()
    patch(module)
    path = fit(module)
    other = Restoration(seed=5)
    patch(other)
    exda.load_checkpoint(path, into=other)
    assert torch.equal(other(image()), module(image()))


def test_checkpoint_patches_an_unpatched_network(fit):
    module = Restoration()
    exda.patch(module, exda.ExDAConfig(tokens=2, scale="mean"))
    path, model = fit(module), network(seed=5)
    exda.load_checkpoint(path, into=model)
    assert exda.config_of(model) == exda.config_of(module)
    assert all(torch.equal(tensor, module.net.state_dict()[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_checkpoint_loads_by_load_state_dict(fit):
    module = Restoration()
    exda.patch(module)
    path = fit(module)
    other = Restoration(seed=5)
    exda.patch(other)
    other.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert torch.equal(other(image()), module(image()))
