"""The probe's margins: how near true matches come to its tolerances, and what it does about sizes that fail."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import exda_primitives as exda
from exda_primitives.patching import probe

from .hosts import MDTA


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_true_matches_do_not_cancel(monkeypatch, bias):
    # A hundredth of the tolerance. One head has one temperature, whose gradient is a single sum over all pixels.
    monkeypatch.setattr(probe, "GRADIENT_TOLERANCE", 1e-5)
    model = nn.ModuleList(MDTA(width, 1, bias) for width in (*range(4, 40, 2), 52, 64))
    report = exda.plan(model)
    assert not report.near_misses
    assert len(report.matches) == len(model)


class Reflecting(MDTA):
    """Its depthwise convolution of 7 x 7 reflects at the border, which takes at least 4 pixels a side."""

    def __init__(self):
        super().__init__()
        self.qkv_dwconv = nn.Conv2d(24, 24, 7, padding=3, groups=24, padding_mode="reflect")


def test_a_host_that_takes_no_narrow_strip_is_probed_on_a_wider_one():
    with pytest.raises(RuntimeError, match="adding size"):
        Reflecting()(torch.rand(1, 8, 2, 16))
    assert len(exda.plan(nn.ModuleList([Reflecting()])).matches) == 1


class FailsOnStrips(MDTA):
    """Reflects more pixels than any strip of the probe has; its other maps have enough."""

    def forward(self, x):
        return super().forward(F.pad(x, (6, 6, 6, 6), "reflect")[..., 6:-6, 6:-6])


def test_a_host_that_fails_on_the_wider_strip_too_is_refused():
    (miss,) = exda.plan(nn.ModuleList([FailsOnStrips()])).near_misses
    assert "forward failed" in miss.reason
    assert "on (1, 8, 4, 580) in eval mode" in miss.reason


class Limited(MDTA):
    """Does something to its temperature before it multiplies by it."""

    def __init__(self, limited):
        super().__init__()
        self.limited = limited

    def forward(self, x):
        learnt = self.temperature
        del self.temperature
        self.temperature = self.limited(learnt)
        try:
            return super().forward(x)
        finally:
            del self.temperature
            self.temperature = learnt


@pytest.mark.parametrize(
    "limited",
    [
        lambda temperature: temperature.clamp(max=10),
        lambda temperature: temperature.clamp(max=100),
        lambda temperature: temperature.clamp(min=0.5),
        lambda temperature: temperature.clamp(min=0.02),
        torch.abs,
        F.softplus,
    ],
)
def test_a_limited_temperature_is_no_match(limited):
    assert len(exda.plan(nn.ModuleList([Limited(lambda temperature: 1 * temperature)])).matches) == 1
    (miss,) = exda.plan(nn.ModuleList([Limited(limited)])).near_misses
    assert "its output differs" in miss.reason
