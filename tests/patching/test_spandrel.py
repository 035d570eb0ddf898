"""Third-party networks as installed from PyPI with spandrel."""

import warnings

import pytest
import torch

import exda_primitives as exda

from .models import image, train_new_parameters
from .unchanged import unchanged

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from spandrel_extra_arches.architectures.M3SNet import M3SNet
    from spandrel_extra_arches.architectures.Restormer import Restormer


def restormer():
    return Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 2, 4, 8])


def bias_free_restormer():
    return Restormer(
        dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, bias=True, LayerNorm_type="BiasFree", inp_channels=3
    )


def m3snet():
    return M3SNet(width=8, enc_blk_nums=[1, 1, 1, 1], dec_blk_nums=[1, 1, 1, 1])


@pytest.mark.parametrize(
    ("make", "attentions"),
    [(restormer, 8), (bias_free_restormer, 8), (m3snet, 1)],
    ids=["restormer", "restormer-biases", "m3snet"],
)
@torch.no_grad()
def test_patch_preserves_outputs_at_two_sizes_and_unpatch_restores_them(make, attentions):
    model = make().eval()
    images = [image(32, 48), image(40, 72)]
    before = [model(x) for x in images]
    with unchanged(model, random_numbers=False):
        assert len(exda.patch(model).matches) == attentions
        for x, expected in zip(images, before, strict=True):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
        exda.unpatch(model)
    assert all(torch.equal(model(x), expected) for x, expected in zip(images, before, strict=True))


def test_stages_of_the_matches():
    assert [match.stage for match in exda.plan(restormer()).matches] == [
        *["encoder"] * 3,
        "latent",
        *["decoder"] * 3,
        "refinement",
    ]


@torch.no_grad()
def test_patched_state_dict_loads_into_our_implementation():
    ours = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()
    theirs = restormer().eval()
    exda.patch(theirs)
    train_new_parameters(theirs)
    exda.patch(ours)
    ours.load_state_dict(theirs.state_dict())
    x = image()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def full_size():
    torch.manual_seed(0)
    return Restormer().eval()


def test_plan_matches_every_attention_at_full_size(full_size):
    report = exda.plan(full_size)
    assert len(report.matches) == 44
    assert not report.near_misses
    assert sum(parameter.numel() for parameter in full_size.parameters()) == 26_126_644


@torch.no_grad()
def test_patch_preserves_outputs_at_full_size(full_size):
    images = [image(32, 24, batch=1), image(16, 40, batch=1)]
    before = [full_size(x) for x in images]
    with exda.patched(full_size):
        for x, expected in zip(images, before, strict=True):
            assert (full_size(x) - expected).abs().max() <= 1e-5
