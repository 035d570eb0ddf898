"""Patching is atomic: it replaces everything or nothing, whatever fails and whenever."""

import pytest
import torch

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, restormer, two_blocks
from .unchanged import unchanged


def different_widths():
    """Two attentions, with 4 and 8 channels per head."""
    return Net(MDTA(num_heads=2), MDTA(num_heads=1))


class TestConfiguration:
    """Options that fit some attentions only."""

    CHANNELWISE = exda.ExDAConfig(tokens=4, reinject="channelwise")

    @pytest.mark.parametrize("call", [exda.patch, exda.plan])
    def test_error_names_the_attention_that_it_does_not_fit(self, call):
        model = different_widths()
        with unchanged(model), pytest.raises(exda.ConfigError, match=r"blocks\.1\.attn.*dim / num_heads = 8, not 4"):
            call(model, self.CHANNELWISE)

    def test_excluding_the_misfit_patches_the_rest(self):
        model = different_widths()
        report = exda.patch(model, self.CHANNELWISE, exclude="blocks.1.attn")
        assert [match.name for match in report.matches] == ["blocks.0.attn"]

    def test_of_another_type_is_refused(self):
        model = two_blocks()
        with unchanged(model), pytest.raises((TypeError, exda.ConfigError), match="ExDAConfig"):
            exda.patch(model, {"tokens": 1})

    def test_that_does_not_fit_is_refused_by_from_host(self):
        host = MDTA(num_heads=1)
        with unchanged(host), pytest.raises(exda.ConfigError, match="not 4"):
            exda.from_host(host, self.CHANNELWISE)


@pytest.fixture
def _wrong_with_tokens(monkeypatch):
    """Makes ExDA attentions wrong only with tokens: the probe, which uses none, passes; verification must not."""
    right = exda.ExDAAttention.forward

    def forward(self, x):
        return right(self, x) * (1 if self.token is None else 1.001)

    monkeypatch.setattr(exda.ExDAAttention, "forward", forward)


@pytest.mark.usefixtures("_wrong_with_tokens")
class TestVerification:
    """The comparison of outputs right before the modules are swapped."""

    def test_names_the_module_and_changes_nothing(self):
        model = two_blocks()
        with (
            unchanged(model, random_numbers=False),
            pytest.raises(exda.VerificationError, match=r"blocks\.0\.attn: .*Nothing was changed"),
        ):
            exda.patch(model)

    def test_failing_at_a_later_module_changes_nothing(self):
        model = Net(MDTA(), MDTA())
        # An output of zeros hides the wrong factor, so that this one passes.
        torch.nn.init.zeros_(model.blocks[0].attn.project_out.weight)
        with unchanged(model, random_numbers=False), pytest.raises(exda.VerificationError, match=r"blocks\.1\.attn"):
            exda.patch(model)

    def test_can_be_skipped(self):
        model = two_blocks()
        assert exda.patch(model, verify=False).applied
        assert exda.is_patched(model)

    def test_fails_in_from_host_too(self):
        host = MDTA()
        with unchanged(host, random_numbers=False), pytest.raises(exda.VerificationError):
            exda.from_host(host)
        assert isinstance(exda.from_host(host, verify=False), exda.ExDAAttention)

    def test_fails_in_patched_too(self):
        model = two_blocks()
        with unchanged(model, random_numbers=False), pytest.raises(exda.VerificationError), exda.patched(model):
            pass


@pytest.mark.parametrize("value", ["replace", "gelu", "sigmoid"])
def test_verification_passes_for_values_without_an_identity_start(value):
    model = two_blocks()
    assert exda.patch(model, exda.ExDAConfig(value=value, init="paper")).applied


@pytest.mark.parametrize("weight", [float("nan"), 1e30], ids=["nan", "huge"])
def test_verification_passes_for_a_model_that_diverged(weight):
    model = two_blocks()
    torch.nn.init.constant_(model.blocks[0].attn.project_out.weight, weight)
    assert exda.patch(model).applied


@pytest.mark.parametrize("init", ["identity", "paper"])
def test_verification_leaves_new_parameters_at_their_initial_values(init):
    found = []
    for verify in (True, False):
        model = two_blocks()
        torch.manual_seed(1)
        exda.patch(model, exda.ExDAConfig(init=init), verify=verify)
        found.append(([p.detach() for p in exda.new_parameters(model)], torch.get_rng_state()))
    (verified, after), (unverified, after_unverified) = found
    assert all(map(torch.equal, verified, unverified))
    assert torch.equal(after, after_unverified)


class Refusing(dict):
    """A module's children; storing an ExDA module among them is interrupted."""

    def __setitem__(self, key, module):
        if isinstance(module, exda.ExDAModule):
            raise KeyboardInterrupt
        super().__setitem__(key, module)


def test_interrupted_patch_changes_nothing():
    model = restormer()
    block = model.decoder_level2[0]
    block._modules = Refusing(block._modules)
    with unchanged(model, random_numbers=False), pytest.raises(KeyboardInterrupt):
        exda.patch(model)
    assert not exda.is_patched(model)


@torch.no_grad()
def test_interrupted_unpatch_changes_nothing_and_can_be_repeated():
    class Reluctant(dict):
        def __setitem__(self, key, module):
            if not isinstance(module, exda.ExDAModule):
                raise KeyboardInterrupt
            super().__setitem__(key, module)

    model = two_blocks()
    exda.patch(model)
    block = model.blocks[1]
    block._modules = Reluctant(block._modules)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        exda.unpatch(model)
    block._modules = dict(block._modules)
    assert len(exda.unpatch(model)) == 2


def test_planning_changes_nothing():
    model = restormer()
    with unchanged(model):
        exda.plan(model)


def test_patch_succeeds_after_a_failed_attempt():
    model = different_widths().eval()
    with pytest.raises(exda.ConfigError):
        exda.patch(model, TestConfiguration.CHANNELWISE)
    x = image()
    before = model(x)
    assert len(exda.patch(model).matches) == 2
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
