"""Without tokens, output channels stay in the convex hull of the value channels; a non-linear value leaves it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import exda_primitives as exda

from ..maps import keys_and_values

DIM, HEADS = 6, 2


@pytest.fixture(scope="session")
def heads_of(make_attention, make_maps):
    """A function that returns the value channels and the output channels before the projection, (B * h, c, N) each."""

    def heads_of(family, size, *, seed=0, gain=1.0, **options):
        module = make_attention(family, DIM, HEADS, True, seed=seed, tokens=0, **options)
        if module.value is not None:
            module.value.conv_out.weight.data.mul_(gain)
        # The identity: what the module returns is what the projection takes.
        project = module.part(module.PARTS[-1])
        project.weight.data.copy_(torch.eye(DIM).view_as(project.weight))
        torch.nn.init.zeros_(project.bias)
        maps = make_maps(family, 2, DIM, *size, seed=seed)
        with torch.no_grad():
            pair = keys_and_values(module, maps)[1], module(*maps)
        return (m.reshape(-1, DIM // HEADS, size[0] * size[1]).numpy() for m in pair)

    return heads_of


def in_hull(channel, values):
    """Whether the channel is a convex combination of the values: one set of weights for all pixels, >= 0, sum 1."""
    equations = np.concatenate([values.T, np.ones((1, len(values)))])
    # Nothing to minimise: the programme is feasible (status 0) or not (status 2).
    programme = linprog(np.zeros(len(values)), A_eq=equations, b_eq=np.append(channel, 1), method="highs")
    assert programme.status in {0, 2}, programme.message
    return programme.status == 0


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
seeds = st.integers(0, 2**16)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@settings(max_examples=25, deadline=None)
@given(size=sizes, seed=seeds)
def test_linear_value_stays_between_the_smallest_and_the_largest(channel_family, backend, heads_of, size, seed):
    with exda.backend(backend):
        values, outputs = heads_of(channel_family, size, seed=seed, value="none")
    assert (outputs >= values.min(1, keepdims=True) - 1e-12).all()
    assert (outputs <= values.max(1, keepdims=True) + 1e-12).all()


@settings(max_examples=15, deadline=None)
@given(size=sizes, seed=seeds)
def test_linear_value_stays_in_the_hull(channel_family, heads_of, size, seed):
    values, outputs = heads_of(channel_family, size, seed=seed, value="none")
    assert all(in_hull(channel, own) for own, channels in zip(values, outputs, strict=True) for channel in channels)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("value", ["residual", "replace"])
def test_nonlinear_value_leaves_the_hull(channel_family, heads_of, value, position):
    values, outputs = heads_of(channel_family, (6, 5), value=value, value_position=position)
    inside = [in_hull(channel, own) for own, channels in zip(values, outputs, strict=True) for channel in channels]
    assert not any(inside)


def test_nonlinear_value_exceeds_the_largest_value(channel_family, heads_of):
    values, outputs = heads_of(channel_family, (6, 5), value="residual", gain=20)
    assert (outputs > values.max(1, keepdims=True)).any()
    assert (outputs < values.min(1, keepdims=True)).any()


def test_in_hull_on_three_channels():
    values = np.eye(3)
    assert in_hull(np.array([0.2, 0.3, 0.5]), values)
    assert in_hull(np.array([0.0, 1.0, 0.0]), values)
    assert not in_hull(np.array([0.5, 0.6, -0.1]), values)
    assert not in_hull(np.array([0.2, 0.2, 0.2]), values)
