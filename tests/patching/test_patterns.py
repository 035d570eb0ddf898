"""Which attentions include, exclude and families select."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .models import restormer, two_blocks
from .unchanged import unchanged

ENCODER = ["encoder_level1.0.attn", "encoder_level2.0.attn", "encoder_level3.0.attn"]
DECODER = ["decoder_level3.0.attn", "decoder_level2.0.attn", "decoder_level1.0.attn"]
LATENT, REFINEMENT = "latent.0.attn", "refinement.0.attn"
ALL = [*ENCODER, LATENT, *DECODER, REFINEMENT]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return restormer()


def names(report):
    return [match.name for match in report.matches]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (None, ALL),
        ("*", ALL),
        ("decoder", DECODER),
        ("latent", [LATENT]),
        ("decoder*", DECODER),
        ("decoder_level1", [DECODER[2]]),
        ("decoder_level1.0", [DECODER[2]]),
        ("decoder_level[12].*.attn", DECODER[1:]),
        ("*_level3.*", [ENCODER[2], DECODER[0]]),
        ("*.0.attn", ALL),
        (["encoder", "refinement"], [*ENCODER, REFINEMENT]),
        (["latent.0.attn", "encoder_level1"], [ENCODER[0], LATENT]),
        (("decoder", "decoder_level1"), DECODER),
    ],
    ids=repr,
)
def test_include_selects_by_stage_name_and_pattern(model, include, expected):
    assert names(exda.plan(model, include=include)) == expected


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, "refinement", ALL[:-1]),
        (None, ["encoder", "decoder"], [LATENT, REFINEMENT]),
        ("decoder", "decoder_level2", [DECODER[0], DECODER[2]]),
        ("*", "*_level*", [LATENT, REFINEMENT]),
        ("latent", "encoder", [LATENT]),
    ],
    ids=str,
)
def test_exclude_takes_precedence_over_include(model, include, exclude, expected):
    assert names(exda.plan(model, include=include, exclude=exclude)) == expected


def test_patch_replaces_what_plan_says():
    model = restormer()
    exda.patch(model, include=["decoder", "latent"], exclude="decoder_level3")
    replaced = [name for name, module in model.named_modules() if isinstance(module, exda.ExDAModule)]
    assert sorted(replaced) == sorted([LATENT, *DECODER[1:]])


@pytest.mark.parametrize("argument", ["include", "exclude"])
@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("decodr", "Did you mean 'decoder'"),
        ("decoder_levl1", "Did you mean 'decoder_level1'"),
        ("DECODER", "Stages: decoder, encoder, latent, refinement"),
        ("attn", r"names: decoder_level1\.0\.attn"),
        ("blocks.*", r"\(8 in all\)"),
        ("decoder_level1.0.ffn", "selects none"),
        ("", "selects none"),
    ],
)
def test_pattern_that_selects_nothing_raises_with_a_hint(argument, pattern, hint):
    model = restormer()
    with unchanged(model), pytest.raises(exda.PatternError, match=hint) as caught:
        exda.patch(model, **{argument: pattern})
    assert f"{argument}={pattern!r}" in str(caught.value)


def test_one_bad_pattern_among_good_ones_raises():
    model = restormer()
    with unchanged(model), pytest.raises(exda.PatternError, match="'bottleneck'"):
        exda.patch(model, include=["decoder", "bottleneck"])


def test_stage_of_an_unknown_backbone_raises():
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.PatternError, match=r"unknown for this backbone.*blocks\.0\.attn"):
        exda.patch(model, include="decoder")


@pytest.mark.parametrize("families", ["mtda", ["mdta", "mtda"]], ids=str)
def test_unknown_family_raises(families):
    model = two_blocks()
    with unchanged(model), pytest.raises(exda.PatternError, match=r"no family 'mtda'.*mdta"):
        exda.patch(model, families=families)


@pytest.mark.parametrize(
    "selection",
    [{"exclude": "*"}, {"include": "decoder", "exclude": "decoder_level*"}, {"include": []}],
    ids=["all-excluded", "what-is-included-excluded", "empty-list"],
)
def test_empty_selection_raises(selection):
    model = restormer()
    with unchanged(model), pytest.raises(exda.ExDAError) as caught:
        exda.patch(model, **selection)
    assert "include" in str(caught.value) or "exclude" in str(caught.value)


def test_stages_are_known_inside_another_module():
    class Task(nn.Module):
        """As training frameworks wrap a network."""

        def __init__(self):
            super().__init__()
            self.net = restormer()

    report = exda.plan(Task(), include="decoder")
    assert names(report) == [f"net.{name}" for name in DECODER]
    assert report.matches[0].backbone == "restormer"
    assert report.multiple_of == 8
