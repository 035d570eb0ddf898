"""Models that are an attention themselves: patch refuses, from_host replaces."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, Cross, Histogram, Renamed
from .lookalikes import ReLU
from .unchanged import unchanged


def test_patch_names_from_host():
    host = MDTA()
    with unchanged(host), pytest.raises(exda.RootModuleError, match=r"MDTA.*exda\.from_host"):
        exda.patch(host)


def test_plan_matches_the_model_itself():
    (match,) = exda.plan(MDTA()).matches
    assert (match.name, match.family) == ("", "mdta")
    assert "alpha" in match.new_parameters


@pytest.mark.parametrize("make", [MDTA, Renamed, Cross, Histogram])
@torch.no_grad()
def test_from_host_preserves_the_output_and_release_returns_the_host(make):
    host = make()
    maps = torch.randn(2 if make is Cross else 1, 2, 8, 9, 7)
    expected = host(*maps.clone())
    with unchanged(host, random_numbers=False):
        replacement = exda.from_host(host)
    torch.testing.assert_close(replacement(*maps), expected, rtol=0, atol=1e-5)
    held = {id(parameter) for parameter in replacement.parameters()}
    assert {id(parameter) for parameter in host.parameters()} < held
    assert replacement.release() is host


def test_from_host_takes_a_configuration():
    assert exda.from_host(MDTA(), exda.ExDAConfig(tokens=3)).config.tokens == 3


def test_from_host_refuses_a_lookalike():
    host = ReLU()
    with unchanged(host), pytest.raises(exda.NoMatchError, match=r"ReLU\) is not mdta: its output differs"):
        exda.from_host(host)


def test_from_host_does_not_look_inside():
    host = nn.Sequential(MDTA())
    with unchanged(host), pytest.raises(exda.NoMatchError):
        exda.from_host(host)


def test_from_host_restricts_the_families():
    with pytest.raises(exda.NoMatchError):
        exda.from_host(MDTA(), families="cross")


def test_unpatch_refuses_a_replacement_without_a_parent():
    replacement = exda.from_host(MDTA())
    with unchanged(replacement), pytest.raises(exda.ExDAError, match="ExDAAttention"):
        exda.unpatch(replacement)


def test_release_of_a_module_built_from_scratch_raises():
    with pytest.raises(exda.NotPatchedError, match="no other module"):
        exda.ExDAAttention(8, 2).release()
