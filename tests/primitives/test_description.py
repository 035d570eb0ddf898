"""The configuration in a state dict survives what trainers do to every entry; anything damaged is refused."""

import contextlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.swa_utils import get_ema_multi_avg_fn

import exda_primitives as exda
from exda_primitives.primitives.description import VERSION, Description, _text, decoded, encoded

CONFIGS = st.builds(
    exda.ExDAConfig,
    tokens=st.integers(0, 10**6),
    stride=st.integers(1, 10**6),
    scale=st.sampled_from(["sum", "mean"]),
    reinject=st.sampled_from(["mean", "channelwise"]),
    value=st.sampled_from(["residual", "replace", "gelu", "sigmoid", "none"]),
    value_position=st.sampled_from(["before", "after"]),
    init=st.just("paper"),
)
DESCRIPTIONS = st.builds(Description, CONFIGS, st.booleans())
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(DESCRIPTIONS, st.sampled_from([*FLOATS, torch.uint8, torch.int8, torch.int64]))
def test_description_survives_any_dtype(description, dtype):
    assert decoded(encoded(description).to(dtype), "here") == description


@given(DESCRIPTIONS, st.sampled_from(FLOATS), st.floats(0.5, 0.99999), st.integers(1, 30))
def test_description_survives_averages_with_itself(description, dtype, decay, times):
    average, now = (encoded(description).to(dtype) for _ in range(2))
    by_hand = average.clone()
    for _ in range(times):
        get_ema_multi_avg_fn(decay)([average], [now], None)
        by_hand = by_hand * decay + now * (1 - decay)
    assert decoded(average, "here") == decoded(by_hand, "here") == description


@given(DESCRIPTIONS, DESCRIPTIONS, st.floats(0.05, 0.95))
def test_average_of_two_is_one_of_them_or_refused(one, other, weight):
    a, b = encoded(one), encoded(other)
    if a.shape == b.shape:
        found = one
        with contextlib.suppress(exda.CheckpointError):
            found = decoded(torch.lerp(a, b, weight), "here")
        assert found in (one, other)


@given(DESCRIPTIONS, st.data())
def test_damaged_description_is_refused(description, data):
    tensor = encoded(description)
    place = data.draw(st.integers(0, len(tensor) - 1))
    tensor[place] = (tensor[place] + data.draw(st.integers(1, 15))) % 16
    with pytest.raises(exda.CheckpointError, match="here: its configuration cannot be read"):
        decoded(tensor, "here")


@pytest.mark.parametrize(
    "held",
    [
        None,
        "text",
        torch.zeros(0),
        torch.zeros(8),
        torch.zeros(3, 3),
        torch.full((20,), float("nan")),
        torch.full((20,), 1e30),
        torch.zeros(300),
        torch.linspace(0, 15, 301),
    ],
    ids=lambda held: str(held)[:20],
)
def test_anything_but_a_description_is_refused(held):
    with pytest.raises(exda.CheckpointError, match="cannot be read"):
        decoded(held, "here")


def test_newer_version_is_refused(monkeypatch):
    monkeypatch.setattr("exda_primitives.primitives.description.VERSION", VERSION + 1)
    tensor = encoded(Description(exda.ExDAConfig(), built_in=False))
    monkeypatch.undo()
    with pytest.raises(exda.CheckpointError, match=f"version {VERSION + 1}.*upgrade"):
        decoded(tensor, "here")


def test_description_is_readable_without_this_library():
    tensor = encoded(Description(exda.ExDAConfig(tokens=3), built_in=True))
    data = bytes(int(16 * high + low) for high, low in tensor.view(-1, 2).tolist())
    assert json.loads(data[:-4]) == {"version": VERSION, "built_in": True, **exda.ExDAConfig(tokens=3).as_dict()}
    assert data[:-4] == _text(tensor)


def test_state_dict_holds_the_description(family, classes):
    module = classes[family](8, 2, tokens=2, stride=3)
    assert decoded(module.state_dict()["_extra_state"], "here") == Description(module.config, built_in=True)


def test_another_configuration_is_an_error_that_names_both(family, classes):
    state = classes[family](8, 2, stride=3).state_dict()
    module = torch.nn.Sequential(classes[family](8, 2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(exda.CheckpointError, match=r"0: the state dict is .*stride=3.* this one has .*stride=2"):
            module.load_state_dict({f"0.{name}": tensor for name, tensor in state.items()}, strict=strict)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_another_init_is_no_mismatch(family, classes, make_maps):
    one, other = classes[family](8, 2, init="paper"), classes[family](8, 2, init="identity")
    other.load_state_dict(one.state_dict())
    maps = make_maps(family, 1, 8, 5, 3, dtype=torch.float32)
    assert torch.equal(one(*maps), other(*maps))
