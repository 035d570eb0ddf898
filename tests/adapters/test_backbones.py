"""The networks whose stages are known."""

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
STAGES = {
    "restormer": RESTORMER,
    "promptir": RESTORMER | PROMPTIR,
    "adair": RESTORMER | ADAIR,
    "histoformer": {name.replace("attn", "attn_g"): place for name, place in RESTORMER.items()},
    "amir": RESTORMER,
}
CHILDREN = {
    "restormer": (),
    "promptir": ("prompt1", "prompt2", "prompt3", "noise_level1", "noise_level2", "noise_level3"),
    "adair": ("fre1", "fre2", "fre3"),
    "histoformer": ("skip_patch_embed1", "skip_patch_embed2", "skip_patch_embed3"),
    "amir": ("dict_generator", "channel_routing_latent"),
}


def skeleton(*extra):
    """A network of which only the names of its children are there."""
    model = nn.Module()
    for name in (*{name.split(".")[0] for name in RESTORMER}, "patch_embed", "output", *extra):
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
@pytest.mark.parametrize("name", ["patch_embed.proj", "output", "encoder_level11.0.attn", "body.latent.0.attn", ""])
def test_names_outside_of_all_stages(backbone, name):
    assert known_backbones()[backbone].stage_of(name) is None


@pytest.mark.parametrize("backbone", STAGES)
def test_multiple_of(backbone):
    assert known_backbones()[backbone].multiple_of == 8


@pytest.mark.parametrize("backbone", CHILDREN)
def test_the_most_specific_one_wins(backbone):
    model = skeleton(*CHILDREN[backbone])
    model.latent = nn.Sequential(MDTA())
    (match,) = exda.plan(model).matches
    assert (match.backbone, match.stage, match.downscale) == (backbone, "latent", 8)


@pytest.mark.parametrize("missing", ["latent", "refinement", "encoder_level2"])
def test_a_network_without_one_of_the_children_is_another(missing):
    model = skeleton()
    model.decoder_level1 = nn.Sequential(MDTA())
    assert exda.plan(model).matches[0].backbone == "restormer"
    delattr(model, missing)
    report = exda.plan(model)
    assert report.matches[0].backbone is None
    assert report.multiple_of is None


@pytest.mark.parametrize("backbone", CHILDREN)
def test_as_a_part_of_a_larger_model(backbone):
    model = nn.ModuleDict({"teacher": nn.Sequential(MDTA()), "student": skeleton(*CHILDREN[backbone])})
    model["student"].refinement = nn.Sequential(MDTA())
    teacher, student = exda.plan(model).matches
    assert (teacher.backbone, teacher.stage) == (None, None)
    assert (student.backbone, student.stage) == (backbone, "refinement")


def test_two_networks_of_different_kinds():
    model = nn.ModuleDict({kind: skeleton(*CHILDREN[kind]) for kind in ("restormer", "promptir")})
    for network in model.values():
        network.latent = nn.Sequential(MDTA())
    assert [match.backbone for match in exda.plan(model).matches] == ["restormer", "promptir"]
