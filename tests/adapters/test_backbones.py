"""The stages of the reference backbones, and how a backbone is recognised."""

import pytest
from torch import nn

import exda_primitives as exda
from exda_primitives.patching.registry import known_backbones

from ..patching.hosts import MDTA

RESTORMER = {
    "encoder_level1.0.attn": ("encoder", 1),
    "encoder_level2.5.attn": ("encoder", 2),
    "encoder_level3.10.attn": ("encoder", 4),
    "latent.7.attn": ("latent", 8),
    "decoder_level3.0.attn": ("decoder", 4),
    "decoder_level2.0.attn": ("decoder", 2),
    "decoder_level1.3.attn": ("decoder", 1),
    "refinement.0.attn": ("refinement", 1),
}
PROMPTIR = {
    "noise_level3.attn": ("decoder", 8),
    "noise_level2.attn": ("decoder", 4),
    "noise_level1.attn": ("decoder", 2),
}
ADAIR = {
    "fre1.channel_cross_l": ("latent", 8),
    "fre1.frequency_refine.attn": ("latent", 8),
    "fre2.channel_cross_h": ("decoder", 4),
    "fre3.channel_cross_agg": ("decoder", 2),
}
MOCEIR = {
    "enc.0.0.layers.3.mixer": ("encoder", 1),
    "enc.1.0.layers.0.mixer": ("encoder", 2),
    "enc.2.0.layers.5.mixer": ("encoder", 4),
    "latent.layers.7.mixer": ("latent", 8),
    "dec.0.2.layers.0.shared": ("decoder", 4),
    "dec.1.2.layers.3.mixer": ("decoder", 2),
    "dec.2.2.layers.1.mixer": ("decoder", 1),
    "refinement.layers.0.mixer": ("refinement", 1),
}
STAGES = {
    "restormer": RESTORMER,
    "promptir": RESTORMER | PROMPTIR,
    "adair": RESTORMER | ADAIR,
    "histoformer": {name.replace("attn", "attn_g"): place for name, place in RESTORMER.items()},
    "amir": RESTORMER,
    "moceir": MOCEIR,
}
OTHER_CHILDREN = {
    "restormer": (),
    "promptir": ("prompt1", "prompt2", "prompt3"),
    "adair": (),
    "histoformer": ("skip_patch_embed1", "skip_patch_embed2", "skip_patch_embed3"),
    "amir": ("dict_generator", "channel_routing_latent"),
    "moceir": ("freq_embed",),
}
"""Children by which a backbone is recognised, besides those that hold its stages."""


def skeleton(backbone):
    """A network that has the names of the backbone's children, and nothing in them."""
    model = nn.Module()
    levels = dict.fromkeys(name.split(".")[0] for name in STAGES[backbone])
    for name in (*levels, "patch_embed", "output", *OTHER_CHILDREN[backbone]):
        model.add_module(name, nn.Identity())
    return model


@pytest.mark.parametrize(
    ("backbone", "name", "stage", "downscale"),
    [(backbone, name, *place) for backbone, places in STAGES.items() for name, place in places.items()],
)
def test_stage_of(backbone, name, stage, downscale):
    found = known_backbones()[backbone].stage_of(name)
    assert (found.stage, found.downscale) == (stage, downscale)


@pytest.mark.parametrize("backbone", STAGES)
@pytest.mark.parametrize(
    "name", ["patch_embed.proj", "output", "encoder_level11.0.attn", "enc.00.attn", "body.latent.0.attn", ""]
)
def test_names_outside_all_stages_have_none(backbone, name):
    assert known_backbones()[backbone].stage_of(name) is None


@pytest.mark.parametrize("backbone", STAGES)
def test_multiple_of(backbone):
    assert known_backbones()[backbone].multiple_of == 8


@pytest.mark.parametrize("backbone", STAGES)
def test_most_specific_backbone_wins(backbone):
    model = skeleton(backbone)
    model.latent = nn.Sequential(MDTA())
    (match,) = exda.plan(model).matches
    assert (match.backbone, match.stage, match.downscale) == (backbone, "latent", 8)


@pytest.mark.parametrize(
    ("backbone", "missing"),
    [
        ("restormer", "latent"),
        ("restormer", "encoder_level2"),
        ("restormer", "decoder_level1"),
        ("moceir", "enc"),
        ("moceir", "freq_embed"),
    ],
)
def test_network_without_a_required_child_is_not_recognised(backbone, missing):
    model = skeleton(backbone)
    model.attention = nn.Sequential(MDTA())
    assert exda.plan(model).matches[0].backbone == backbone
    delattr(model, missing)
    report = exda.plan(model)
    assert report.matches[0].backbone is None
    assert report.multiple_of is None


def test_restormer_without_refinement_is_recognised():
    model = skeleton("restormer")
    model.attention = nn.Sequential(MDTA())
    del model.refinement
    report = exda.plan(model)
    assert (report.matches[0].backbone, report.multiple_of) == ("restormer-unrefined", 8)


@pytest.mark.parametrize("backbone", STAGES)
def test_backbone_inside_a_larger_model_is_recognised(backbone):
    model = nn.ModuleDict({"teacher": nn.Sequential(MDTA()), "student": skeleton(backbone)})
    model["student"].refinement = nn.Sequential(MDTA())
    teacher, student = exda.plan(model).matches
    assert (teacher.backbone, teacher.stage) == (None, None)
    assert (student.backbone, student.stage) == (backbone, "refinement")


def test_two_backbones_in_one_model_are_recognised():
    model = nn.ModuleDict({kind: skeleton(kind) for kind in ("restormer", "promptir")})
    for network in model.values():
        network.latent = nn.Sequential(MDTA())
    assert [match.backbone for match in exda.plan(model).matches] == ["restormer", "promptir"]
