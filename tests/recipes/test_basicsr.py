"""``exda.patch`` as one line in ``define_network`` of a BasicSR trainer: start, train, save, resume, test, restore."""

import pytest
import torch

import exda_primitives as exda

from .basicsr import Trainer, loaded_for_testing

SMALL = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "ffn_expansion_factor": 2}
NETWORKS = {"Restormer": exda.models.Restormer, "Histoformer": exda.models.Histoformer}
CONFIG = exda.ExDAConfig(tokens=2, value_position="after")


@pytest.fixture(params=NETWORKS)
def host(request):
    return lambda: NETWORKS[request.param](**SMALL)


@pytest.fixture
def define_network(host):
    def define():
        network = host()
        # The only line that is added to a trainer.
        exda.patch(network, CONFIG, verify=False)
        return network

    return define


@pytest.fixture
def original(host, tmp_path):
    """A file as the authors publish it."""
    torch.manual_seed(1)
    network = host()
    torch.save({"params": network.state_dict()}, tmp_path / "original.pth")
    return tmp_path / "original.pth", network.eval()


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 16, 16, generator=generator), torch.rand(2, 3, 16, 16, generator=generator)


def restored(network):
    with torch.no_grad():
        return network.eval()(images()[0])


def test_training_starts_from_the_original_weights(define_network, original, tmp_path):
    path, network = original
    with pytest.warns(UserWarning, match="holds nothing of what ExDA added") as warned:
        trainer = Trainer(define_network, tmp_path, pretrained=path)
    # One for each of the two networks.
    assert len([each for each in warned if "ExDA added" in str(each.message)]) == 2
    for begun in (trainer.net_g, trainer.net_g_ema):
        torch.testing.assert_close(restored(begun), restored(network), rtol=0, atol=1e-5)


@pytest.mark.parametrize("decay", [0, 0.9])
def test_resumed_training_equals_uninterrupted_training(define_network, tmp_path, decay):
    torch.manual_seed(2)
    whole = Trainer(define_network, tmp_path, decay=decay)
    for _ in range(2):
        whole.step(*images())
    whole.save(2)
    resumed = Trainer(define_network, tmp_path, pretrained=tmp_path / "net_g_2.pth", decay=decay)
    resumed.resume(2)
    for trainer in (whole, resumed):
        trainer.step(*images())
    assert torch.equal(restored(resumed.net_g), restored(whole.net_g))
    if decay:
        assert torch.equal(restored(resumed.net_g_ema), restored(whole.net_g_ema))


def test_saved_file_is_tested_rebuilt_and_unpatched(define_network, host, original, tmp_path):
    trainer = Trainer(define_network, tmp_path, pretrained=original[0], decay=0.5)
    for _ in range(2):
        trainer.step(*images())
    trainer.save(2)
    path = tmp_path / "net_g_2.pth"
    assert torch.equal(restored(loaded_for_testing(define_network, path)), restored(trainer.net_g))
    average = exda.models.create(checkpoint=path)
    assert exda.is_patched(average)
    assert exda.config_of(average) == CONFIG
    assert torch.equal(restored(average), restored(trainer.net_g_ema))
    now = exda.models.create(checkpoint=path, param_key="params")
    assert torch.equal(restored(now), restored(trainer.net_g))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        host().load_state_dict(torch.load(path)["params"])
    exda.unpatch(now)
    plain = host()
    plain.load_state_dict(now.state_dict())
    assert torch.equal(restored(plain), restored(now))


def test_patching_only_one_of_the_two_networks_is_detected(define_network, host, tmp_path):
    trainer = Trainer(host, tmp_path, decay=0)
    exda.patch(trainer.net_g, CONFIG, verify=False)
    torch.save({"params": trainer.net_g.state_dict(), "params_ema": host().state_dict()}, tmp_path / "net_g_1.pth")
    with pytest.raises(exda.CheckpointError, match=r"'params' is of a patched network and 'params_ema' is not"):
        exda.models.create(checkpoint=tmp_path / "net_g_1.pth")


def test_resuming_with_another_configuration_raises(define_network, host, tmp_path):
    trainer = Trainer(define_network, tmp_path)
    trainer.save(1)

    def changed():
        network = host()
        exda.patch(network, exda.ExDAConfig(tokens=2), verify=False)
        return network

    with pytest.raises(exda.CheckpointError, match=r"value_position='after'.*value_position='before'"):
        Trainer(changed, tmp_path, pretrained=tmp_path / "net_g_1.pth")
