"""The probe of strengths tells what features determine and nothing of what they do not; features of every network."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import exda_primitives as exda
from exda_primitives.workbench.inspection.collect import Call
from exda_primitives.workbench.inspection.layouts import family_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def strength():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("strength")


def test_the_probe_is_told_by_features_alone(strength):
    drawn = np.random.default_rng(0)
    strengths = drawn.uniform(5, 50, 60)
    noise = drawn.normal(size=(60, 4))
    assert strength.told(np.column_stack([noise, 3 * strengths - 1]), strengths, 0) > 0.99
    assert strength.told(noise, strengths, 0) < 0.2


def test_every_feature_is_finite_and_of_one_length(strength):
    images = [torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    found = strength.features(images, strength.networks(0))
    assert found.keys() == {strength.INPUT, *strength.FEATURES}
    assert all(points.shape[0] == 2 and np.isfinite(points).all() for points in found.values())


class Softmaxes(TorchDispatchMode):
    """Keeps the output of every softmax."""

    def __init__(self):
        super().__init__()
        self.outputs = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._softmax.default:
            self.outputs.append(output)
        return output


def test_token_rows_are_those_of_the_printed_attention(strength):
    torch.manual_seed(0)
    attention, x = exda.ExDAAttention(12, 2, tokens=3, init="paper"), torch.rand(1, 12, 9, 14)
    with torch.no_grad(), exda.backend("reference"), Softmaxes() as seen:
        attention(x)
    (printed,) = (each for each in seen.outputs if each.shape == (1, 2, 9, 9))
    with torch.no_grad():
        rows = strength.token_rows(Call(attention, family_of(attention), (x,), {}, x))
    assert torch.allclose(rows, printed[:, :, 6:].flatten(), atol=1e-6)
