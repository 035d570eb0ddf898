"""Which attentions of a network can be inspected."""

import pytest
import torch
from tests.lifecycle.networks import network, trained
from torch import nn

import exda_primitives as exda
from exda_primitives.workbench.inspection.attentions import attentions


def test_patched_and_unpatched_networks_have_the_same_attentions() -> None:
    host, patched = network(), trained()
    names = [f"{level}.0.attn" for level in ("encoder_level1", "latent", "decoder_level1", "refinement")]
    assert set(names) <= set(attentions(host))
    assert list(attentions(host)) == list(attentions(patched))
    assert all(patched.get_submodule(name) is module for name, module in attentions(patched).items())
    assert not any(isinstance(module, exda.ExDAModule) for module in attentions(host).values())


def test_a_partly_patched_network_keeps_the_order() -> None:
    model = network()
    everything = list(attentions(model))
    exda.patch(model, include="decoder")
    assert list(attentions(model)) == everything
    assert set(attentions(model, with_tokens=True)) == {n for n in everything if n.startswith("decoder")}


def test_an_exda_attention_that_was_built_in() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), exda.ExDAAttention(8, 2))
    assert list(attentions(model)) == ["1"]


def test_attentions_are_selected_by_block() -> None:
    model = trained()
    assert list(attentions(model, "latent")) == ["latent.0.attn"]
    with pytest.raises(exda.PatternError, match="nowhere"):
        attentions(model, "nowhere")


def test_a_network_without_attentions_is_refused() -> None:
    with pytest.raises(exda.NoMatchError, match="no attention of a known family"):
        attentions(nn.Conv2d(3, 3, 3))


@pytest.mark.parametrize("patched", [False, True])
def test_a_network_without_tokens_is_refused(patched: bool) -> None:
    model = network()
    if patched:
        exda.patch(model, exda.ExDAConfig(tokens=0))
    with pytest.raises(exda.NotPatchedError, match="no ExDA attention with global spatial tokens"):
        attentions(model, with_tokens=True)


def test_a_fused_network_is_refused() -> None:
    model = trained()
    exda.fuse(model)
    with pytest.raises(exda.ConfigError, match=r"exda\.unfuse"):
        attentions(model)


def test_a_wrapped_network_is_refused() -> None:
    with pytest.raises(exda.WrappedModelError, match=r"plain module inside, such as model\.module"):
        attentions(torch.nn.DataParallel(network()))


def test_a_compiled_network_has_the_attentions_of_its_module() -> None:
    model = trained()
    assert list(attentions(torch.compile(model))) == list(attentions(model))
