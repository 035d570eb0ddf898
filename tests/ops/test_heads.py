"""Heads have no order: the output stays the same if they are permuted in all weights."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import exda_primitives as exda

HEADS, CHANNELS, TOKENS = 3, 2, 2


def permuted(module, order):
    """A copy with its heads in another order: rows of the weights that write heads, columns of those that read them."""

    def rows(tensor, groups):
        """Permutes the heads within each of ``groups`` chunks (as q, k, v)."""
        return tensor.unflatten(0, (groups, HEADS, -1))[:, order].flatten(0, 2)

    def columns(tensor):
        return tensor.unflatten(1, (HEADS, -1))[:, order].flatten(1, 2)

    other = copy.deepcopy(module)
    with torch.no_grad():
        for name in ("temperature", "alpha", "token_gate"):
            getattr(other, name).copy_(getattr(module, name)[order])
        for name in other.PARTS[1:-1]:
            for parameter in getattr(other, name).parameters():
                parameter.copy_(rows(parameter, len(parameter) // module.dim))
        other.token.phi.weight.copy_(rows(module.token.phi.weight, 1))
        other.value.conv_in.weight.copy_(columns(module.value.conv_in.weight))
        for parameter in other.value.conv_out.parameters():
            parameter.copy_(rows(parameter, 1))
        project = module.PARTS[-1]
        other.part(project).weight.copy_(columns(module.part(project).weight))
    return other


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("position", ["before", "after"])
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(HEADS)), reinject=st.sampled_from(["mean", "channelwise"]), seed=st.integers(0, 99))
def test_permuted_heads_give_the_same_output(
    family, backend, position, order, reinject, seed, make_attention, make_maps
):
    options = {"tokens": TOKENS, "stride": 1, "reinject": reinject, "value_position": position}
    module = make_attention(family, HEADS * CHANNELS, HEADS, True, seed=seed, **options)
    maps = make_maps(family, 1, HEADS * CHANNELS, 5, 4, seed=seed)
    with exda.backend(backend):
        torch.testing.assert_close(permuted(module, order)(*maps), module(*maps), rtol=0, atol=1e-11)


def test_heads_permuted_before_the_projection_alone_change_the_output(family, make_attention, make_maps):
    module, maps = make_attention(family, 6, 3), make_maps(family, 1, 6, 5, 4)
    swapped = permuted(module, [1, 0, 2])
    project = module.PARTS[-1]
    swapped.part(project).load_state_dict(module.part(project).state_dict())
    assert (swapped(*maps) - module(*maps)).abs().max() > 1e-3
