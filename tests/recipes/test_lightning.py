"""``exda.patch`` as one line in the ``__init__`` of a LightningModule, as in PromptIR's and AdaIR's trainers."""

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import exda_primitives as exda

SMALL = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 2}
# Lightning itself uses what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


class Original(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = exda.models.Restormer(**SMALL)
        self.loss_fn = nn.L1Loss()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        degraded, clean = batch
        return self.loss_fn(self.net(degraded), clean)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


class Patched(Original):
    def __init__(self):
        super().__init__()
        # The only line that is added to a trainer.
        exda.patch(self.net, tokens=2, scale="mean")


def trainer(folder, epochs):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def pairs():
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(*(torch.rand(4, 3, 16, 16, generator=generator) for _ in range(2))), batch_size=2)


@torch.no_grad()
def restored(module):
    return module.eval()(next(iter(pairs()))[0])


@pytest.fixture
def original(tmp_path):
    """A file as the authors publish it."""
    torch.manual_seed(1)
    fit, module = trainer(tmp_path, 1), Original()
    fit.fit(module, pairs())
    fit.save_checkpoint(tmp_path / "original.ckpt")
    return tmp_path / "original.ckpt", module


def test_original_checkpoint_loads_with_one_warning(original):
    path, module = original
    with pytest.warns(UserWarning, match="holds nothing of what ExDA added") as warned:
        patched = Patched.load_from_checkpoint(path, weights_only=True)
    assert len([each for each in warned if "ExDA added" in str(each.message)]) == 1
    torch.testing.assert_close(restored(patched), restored(module), rtol=0, atol=1e-5)


def test_resumed_training_equals_uninterrupted_training_and_is_rebuilt(tmp_path):
    torch.manual_seed(2)
    whole, fit = Patched(), trainer(tmp_path, 2)
    fit.fit(whole, pairs())
    torch.manual_seed(2)
    first, fit = Patched(), trainer(tmp_path, 1)
    fit.fit(first, pairs())
    fit.save_checkpoint(tmp_path / "first.ckpt")
    resumed, fit = Patched(), trainer(tmp_path, 2)
    fit.fit(resumed, pairs(), ckpt_path=tmp_path / "first.ckpt", weights_only=True)
    assert torch.equal(restored(resumed), restored(whole))
    fit.save_checkpoint(tmp_path / "last.ckpt")
    again = Patched.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(restored(again), restored(whole))
    network = exda.models.create(checkpoint=tmp_path / "last.ckpt")
    assert exda.config_of(network) == exda.ExDAConfig(tokens=2, scale="mean")
    assert torch.equal(restored(network), restored(whole))


def test_patched_checkpoint_in_the_original_module_raises(tmp_path):
    fit = trainer(tmp_path, 1)
    fit.fit(Patched(), pairs())
    fit.save_checkpoint(tmp_path / "patched.ckpt")
    with pytest.raises(RuntimeError, match=r"Unexpected key.*attn\.alpha"):
        Original.load_from_checkpoint(tmp_path / "patched.ckpt", weights_only=True)


def test_resuming_with_another_configuration_raises(tmp_path):
    class Changed(Original):
        def __init__(self):
            super().__init__()
            exda.patch(self.net, tokens=2)

    fit = trainer(tmp_path, 1)
    fit.fit(Patched(), pairs())
    fit.save_checkpoint(tmp_path / "patched.ckpt")
    with pytest.raises(exda.CheckpointError, match=r"net\.encoder_level1\.0\.attn.*scale='mean'.*scale='sum'"):
        Changed.load_from_checkpoint(tmp_path / "patched.ckpt", weights_only=True)
