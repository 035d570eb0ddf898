"""``with exda.patched(model)``: whatever happens inside, what it replaced is put back, and nothing else."""

import pytest

import exda_primitives as exda

from .models import restormer, two_blocks
from .unchanged import unchanged


def test_patches_inside_and_restores_after():
    model = two_blocks()
    with unchanged(model, random_numbers=False), exda.patched(model) as report:
        assert report.applied
        assert exda.is_patched(model)


def test_takes_the_arguments_of_patch():
    model = restormer()
    config = exda.ExDAConfig(tokens=2)
    with exda.patched(model, config, include="decoder", exclude="decoder_level1", families="mdta", verify=False) as r:
        assert [match.name for match in r.matches] == ["decoder_level3.0.attn", "decoder_level2.0.attn"]
        assert exda.config_of(model) == config


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_restores_after_an_exception(error):
    model = two_blocks()
    with unchanged(model, random_numbers=False), pytest.raises(error), exda.patched(model):
        raise error


def test_model_patched_before_stays_patched():
    model = two_blocks()
    exda.patch(model)
    with unchanged(model), exda.patched(model) as report:
        assert not report.applied
    assert exda.is_patched(model)


def test_restores_only_what_it_replaced():
    model = restormer()
    exda.patch(model, include="encoder")
    with exda.patched(model, include="decoder"):
        assert isinstance(model.decoder_level1[0].attn, exda.ExDAAttention)
    assert not isinstance(model.decoder_level1[0].attn, exda.ExDAAttention)
    assert isinstance(model.encoder_level1[0].attn, exda.ExDAAttention)


def test_another_configuration_is_refused():
    model = two_blocks()
    exda.patch(model)
    with unchanged(model), pytest.raises(exda.AlreadyPatchedError), exda.patched(model, exda.ExDAConfig(tokens=2)):
        pass


def test_unpatch_inside_is_allowed():
    model = two_blocks()
    with unchanged(model, random_numbers=False), exda.patched(model):
        exda.unpatch(model)


def test_nested_uses_undo_only_their_own():
    model = two_blocks()
    with unchanged(model, random_numbers=False), exda.patched(model, include="blocks.0"):
        with exda.patched(model):
            assert len([m for m in model.modules() if isinstance(m, exda.ExDAModule)]) == 2
        assert len([m for m in model.modules() if isinstance(m, exda.ExDAModule)]) == 1
