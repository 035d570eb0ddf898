"""Backbones known by the names of their children: the stage and downscale of each attention."""

import pytest
import timm
import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, Cross

HALVINGS = {"encoder": (1, 2, 4), "latent": (8,), "decoder": (4, 2, 1), "refinement": (1,)}


def unet_backbone(encoder, latent, decoder, refinement):
    names = {"encoder": encoder, "latent": [latent], "decoder": decoder, "refinement": [refinement]}
    return {
        name: (stage, size) for stage, sizes in HALVINGS.items() for name, size in zip(names[stage], sizes, strict=True)
    }


RESTORMER = unet_backbone(
    [f"encoder_level{i}" for i in (1, 2, 3)], "latent", [f"decoder_level{i}" for i in (3, 2, 1)], "refinement"
)
LCA = [("encoder", 2), ("encoder", 4), ("latent", 8), ("latent", 8), ("decoder", 4), ("decoder", 2)]
# Backbone: ({prefix of an attention's name: (stage, downscale)}, other children, multiple that image sides must have).
NETWORKS = {
    "ndr": (
        unet_backbone(["block1", "block2", "block3"], "bottom", ["block_up3", "block_up2", "block_up1"], "refinement"),
        ["res_connect1"],
        8,
    ),
    "constyle": (
        unet_backbone(
            [f"Process_Module_l{i}" for i in (1, 2, 3)],
            "Process_Module_bottom",
            [f"Process_Module_r{i}" for i in (3, 2, 1)],
            "Finetune_Module",
        ),
        ["ConStyle"],
        8,
    ),
    "monai": (
        unet_backbone(
            [f"encoder_levels.{i}" for i in range(3)], "latent", [f"decoder_levels.{i}" for i in range(3)], "refinement"
        ),
        ["downsamples.0"],
        8,
    ),
    "monai-2": (
        {
            "encoder_levels.0": ("encoder", 1),
            "latent": ("latent", 2),
            "decoder_levels.0": ("decoder", 1),
            "refinement": ("refinement", 1),
        },
        [],
        2,
    ),
    "textif": (
        {
            **{
                f"encoder_{image}.encoder_level{i}": ("latent" if i == 4 else "encoder", 2 ** (i - 1))
                for image in "AB"
                for i in (1, 2, 3, 4)
            },
            "cross_attention": ("latent", 8),
            "decoder_level4": ("latent", 8),
            **{f"decoder_level{i}": ("decoder", 2 ** (i - 1)) for i in (3, 2, 1)},
            "refinement": ("refinement", 1),
        },
        [],
        8,
    ),
    "hvicidnet": ({f"{branch}_LCA{i}": place for branch in ("HV", "I") for i, place in enumerate(LCA, 1)}, [], 8),
    "restormer": (RESTORMER, ["output"], 8),
    "restormer-unrefined": ({name: place for name, place in RESTORMER.items() if name != "refinement"}, ["output"], 8),
    "restormer-encoder": ({name: RESTORMER[name] for name in [*RESTORMER][:4]}, ["patch_embed"], 8),
    "restormer-decoder": ({name: RESTORMER[name] for name in [*RESTORMER][4:]}, ["output"], 1),
    "restormer-decoder-unrefined": ({name: RESTORMER[name] for name in [*RESTORMER][4:7]}, ["output"], 1),
    "edgenext": ({"stages.1.2.xca": ("encoder", 8), "stages.3.1.xca": ("encoder", 32)}, ["stages.0", "stages.2"], 32),
    "xcit-p16": (
        {"blocks.1": ("encoder", 16)},
        ["blocks.0.local_mp", "patch_embed.proj.6", "patch_embed.proj.4", "cls_attn_blocks"],
        16,
    ),
    "xcit-p8": ({"blocks.1": ("encoder", 8)}, ["blocks.0.local_mp", "patch_embed.proj.4", "cls_attn_blocks"], 8),
}


def add_at(network, name, module):
    parent = network
    *path, last = name.split(".")
    for part in path:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent._modules[part]
    if last not in parent._modules:
        parent.add_module(last, module)


@pytest.mark.parametrize("name", NETWORKS)
def test_stage_and_downscale_of_every_attention(name):
    places, others, multiple = NETWORKS[name]
    network = nn.Module()
    for place in places:
        add_at(network, f"{place}.0.attn", Cross() if name == "hvicidnet" else MDTA())
    for other in others:
        add_at(network, other, nn.Module())
    report = exda.plan(nn.ModuleDict({"net": network}))
    assert {match.name: (match.backbone, match.stage, match.downscale) for match in report.matches} == {
        f"net.{place}.0.attn": (name, *where) for place, where in places.items()
    }
    assert report.multiple_of == multiple
    assert not [note for note in report.notes if "fits no module" in note and name != "edgenext"]


def test_names_of_a_backbone_around_plain_convolutions_are_no_backbone():
    network = nn.Module()
    for name in NETWORKS["ndr"][0]:
        add_at(network, name, nn.Conv2d(8, 8, 3))
    assert exda.plan(nn.ModuleDict({"net": network, "attention": MDTA()})).multiple_of is None


@pytest.mark.parametrize(("name", "sizes"), [("xcit_nano_12_p8_224", {8}), ("edgenext_xx_small", {8, 16, 32})])
def test_attentions_of_timm_classifiers_are_encoder_stages(name, sizes):
    with torch.device("meta"):
        report = exda.plan(timm.create_model(name), include="encoder")
    assert {match.downscale for match in report.matches} == sizes
