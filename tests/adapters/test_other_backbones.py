"""Backbones that share the names of Restormer's children, or have attentions in one place only."""

import warnings

import pytest
import torch
from torch import nn

import exda_primitives as exda
from exda_primitives.patching.registry import known_backbones

from ..patching.hosts import MDTA

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from spandrel.architectures.KBNet import KBNet_l, KBNet_s
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel_extra_arches.architectures.M3SNet import M3SNet

PLACES = {
    "encoder_level1": ("encoder", 1),
    "encoder_level2": ("encoder", 2),
    "encoder_level3": ("encoder", 4),
    "latent": ("latent", 8),
    "decoder_level3": ("decoder", 4),
    "decoder_level2": ("decoder", 2),
    "decoder_level1": ("decoder", 1),
    "refinement": ("refinement", 1),
}


def kbnet():
    # 24 is the smallest width that KBNet_l can be built with.
    return KBNet_l(dim=24, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 2, 4, 8])


def m3snet():
    return M3SNet(width=8, middle_blk_num=2, enc_blk_nums=[1, 1, 1, 1])


class XRestormerBlock(nn.Module):
    """The children of X-Restormer's block; its window attention has only the projections."""

    def __init__(self, dim=8):
        super().__init__()
        self.spatial_attn = nn.ModuleDict({"qkv": nn.Conv2d(dim, 3 * dim, 1), "project_out": nn.Conv2d(dim, dim, 1)})
        self.channel_attn = MDTA(dim)
        self.spatial_ffn = nn.Conv2d(dim, dim, 1)
        self.channel_ffn = nn.Conv2d(dim, dim, 1)


def xrestormer():
    model = nn.Module()
    for name in ("patch_embed", "down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1", "output"):
        model.add_module(name, nn.Identity())
    for name in PLACES:
        model.add_module(name, nn.Sequential(XRestormerBlock(), XRestormerBlock()))
    return model


def places(report):
    return {match.name: (match.backbone, match.stage, match.downscale) for match in report.matches}


def test_stages_of_kbnet():
    report = exda.plan(kbnet())
    assert places(report) == {f"{level}.0.ffn": ("kbnet", *place) for level, place in PLACES.items()}
    assert report.multiple_of == 8
    assert not report.near_misses


def test_stages_of_xrestormer():
    report = exda.plan(xrestormer())
    assert places(report) == {
        f"{level}.{i}.channel_attn": ("xrestormer", *place) for level, place in PLACES.items() for i in (0, 1)
    }
    assert report.multiple_of == 64


def test_stages_of_m3snet():
    report = exda.plan(m3snet())
    assert places(report) == {f"middle_blks.{i}": ("m3snet", "latent", 16) for i in (0, 1)}
    assert report.multiple_of == 16


@torch.no_grad()
def test_half_the_multiple_is_not_enough():
    with pytest.raises(RuntimeError, match="divisible"):
        kbnet().eval()(torch.rand(1, 3, 16, 12))
    # M3SNet pads the image to a multiple and does not crop the output.
    assert m3snet().eval()(torch.rand(1, 3, 32, 24)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("make", [kbnet, xrestormer])
def test_without_its_characteristic_part_it_is_a_restormer(make):
    model = make()
    for part in ("spatial_attn", "attn"):
        for block in model.latent:
            if hasattr(block, part):
                delattr(block, part)
    report = exda.plan(model)
    assert {match.backbone for match in report.matches} == {"restormer"}
    assert report.multiple_of == 8


@pytest.mark.parametrize("make", [KBNet_s, NAFNet])
def test_networks_without_channel_attention_are_not_recognised(make):
    with torch.device("meta"):
        model = make()
    assert not exda.plan(model).matches
    assert not any(backbone.fits(model) for backbone in known_backbones().values())


@pytest.mark.parametrize("make", [kbnet, xrestormer, m3snet])
def test_backbone_inside_a_larger_model_is_recognised(make):
    model = nn.ModuleDict({"teacher": nn.Sequential(MDTA()), "student": make()})
    teacher, *student = exda.plan(model).matches
    assert (teacher.backbone, teacher.stage) == (None, None)
    assert {match.backbone for match in student} == {make.__name__}
    assert all(match.stage for match in student)
