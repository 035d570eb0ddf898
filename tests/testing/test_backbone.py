"""The library's own backbones pass ``check_backbone``, and each check finds the fault it is made for."""

from dataclasses import replace

import pytest
from tests.adapters.test_other_backbones import kbnet, m3snet
from torch import nn

import exda_primitives as exda
from exda_primitives.models import AMIR, AdaIR, Histoformer, MoCEIR, Restormer
from exda_primitives.patching.registry import known_backbones
from exda_primitives.testing import BACKBONE_CHECKS, check_backbone

SMALL = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
OURS = {
    "restormer": lambda: Restormer(dim=8, **SMALL),
    "adair": lambda: AdaIR(dim=8, **SMALL),
    "histoformer": lambda: Histoformer(dim=8, ffn_expansion_factor=2, **SMALL),
    "amir": lambda: AMIR(dim=8, **SMALL),
    "moceir": lambda: MoCEIR(dim=16),
    "kbnet": kbnet,
    "m3snet": m3snet,
}


@pytest.mark.parametrize(("name", "check"), [(name, check) for name in OURS for check in BACKBONE_CHECKS])
def test_own_backbones_pass(name, check):
    check_backbone(known_backbones()[name], OURS[name], channels=1 if name == "amir" else 3, only=[check])


class Net(nn.Module):
    """Two attentions, the second on maps of half the size."""

    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(3, 8, 1)
        self.first = nn.Sequential(exda.from_host(OURS["restormer"]().encoder_level1[0].attn).release())
        self.down, self.up = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        self.narrow, self.wide = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.second = nn.Sequential(exda.from_host(OURS["restormer"]().encoder_level1[0].attn).release())

    def forward(self, x):
        x = self.first(self.start(x))
        return self.up(self.wide(self.second(self.narrow(self.down(x)))))


SOUND = exda.Backbone(
    "faulty",
    frozenset({"first", "down", "second"}),
    (exda.Stage("first", "encoder", 1), exda.Stage("second", "latent", 2)),
    2,
)
FIRST, SECOND = SOUND.stages
# "check, variant": (faulty backbone, what the error says).
FAULTS = {
    "recognised, no stage": (replace(SOUND, stages=(FIRST,)), r"second\.0 is in no stage"),
    "recognised, misspelt": (replace(SOUND, stages=(*SOUND.stages, exda.Stage("thrid", "x", 1))), "fits no module"),
    "recognised, another": (replace(SOUND, children=frozenset({"third"})), r"first\.0 is said to be of None"),
    "sizes": (replace(SOUND, stages=(FIRST, SECOND._replace(downscale=4))), r"second\.0 works on .* downscale 4"),
    "sizes, multiple": (replace(SOUND, multiple_of=1), "RuntimeError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_its_fault(fault):
    backbone, message = FAULTS[fault]
    check = fault.partition(",")[0]
    with pytest.raises(AssertionError, match=rf"'faulty' fails the check '{check}': .*{message}"):
        check_backbone(backbone, Net, only=[check])
    assert "faulty" not in known_backbones()


def test_sound_backbone_passes():
    check_backbone(SOUND, Net)
    with pytest.raises(AssertionError, match="identity"):
        check_backbone(replace(SOUND, sorts=True), Net, only=["identity"])


def test_network_without_attention_fails():
    with pytest.raises(AssertionError, match="no attention of a known family"):
        check_backbone(SOUND, lambda: nn.Conv2d(3, 3, 1), only=["recognised"])
