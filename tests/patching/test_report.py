"""The report, as a printed table and as plain data."""

import json

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA, Cross, Histogram
from .lookalikes import Buffer
from .models import Net, restormer, two_blocks


@pytest.fixture(scope="module")
def deep():
    torch.manual_seed(0)
    return exda.models.Restormer(dim=8, num_blocks=[2, 3, 1, 1], num_refinement_blocks=2)


def test_counts_attentions_and_new_parameters(deep):
    text = str(exda.plan(deep))
    assert "Restormer: 15 attentions to replace" in text
    assert f"{exda.plan(deep).extra_parameters:,} new parameters" in text


def test_report_of_patch_says_replaced():
    report = exda.patch(two_blocks())
    assert "Net: 2 attentions replaced" in str(report)


def test_names_are_grouped(deep):
    report = exda.plan(deep)
    text = str(report)
    assert "encoder_level1.{0..1}.attn" in text
    assert "encoder_level2.{0..2}.attn" in text
    assert "latent.0.attn" in text
    assert [len(group) for group in report.grouped()] == [2, 3, 1, 1, 1, 3, 2, 2]


def test_table_has_a_header_and_a_row_per_group(deep):
    lines = str(exda.plan(deep)).splitlines()
    header = next(line for line in lines if "module" in line)
    assert all(word in header for word in ("n", "family", "dim", "heads", "stage", "parameters", "MACs/px"))
    row = next(line for line in lines if "encoder_level2" in line)
    assert all(word in row.split() for word in ("3", "mdta", "16", "2", "encoder"))


class Deeper(nn.Module):
    """Gives its inner module a very long dotted name."""

    def __init__(self, inner, levels):
        super().__init__()
        self.a_rather_long_attribute_name = Deeper(inner, levels - 1) if levels else inner


@pytest.mark.parametrize(
    "make",
    [
        lambda: exda.models.Restormer(dim=8, num_blocks=[2, 3, 1, 1]),
        lambda: Deeper(Net(MDTA(), Buffer(), MDTA()), 5),
        lambda: torch.compile(two_blocks(), backend="eager"),
        lambda: nn.Linear(2, 2),
    ],
    ids=["restormer", "long-names", "notes", "nothing"],
)
def test_at_most_110_columns_and_no_colour(make):
    text = str(exda.plan(make()))
    assert text
    assert max(map(len, text.splitlines())) <= 110
    assert "\x1b" not in text


def test_markup_in_names_is_text():
    class Odd(nn.ModuleDict):
        pass

    text = str(exda.plan(Odd({"[bold]": Net(MDTA())})))
    assert "[bold]" in text


def test_near_misses_and_notes_are_in_the_text():
    text = " ".join(str(exda.plan(torch.compile(Net(MDTA(), Buffer()), backend="eager"))).split())
    assert "left alone: blocks.1.attn (Buffer) is not mdta: it holds buffers (mask)" in text
    assert "note: the model is compiled" in text


def test_already_patched_is_in_the_text():
    model = two_blocks()
    exda.patch(model)
    assert "already patched: 2" in str(exda.plan(model))


@pytest.mark.parametrize("applied", [True, False], ids=["patch", "plan"])
def test_as_dict_is_plain_data(applied):
    model = Net(MDTA(), Buffer(), MDTA())
    report = exda.patch(model) if applied else exda.plan(model)
    data = json.loads(json.dumps(report.as_dict()))
    assert data["applied"] is applied
    assert data["config"] == exda.ExDAConfig().as_dict()
    assert [match["name"] for match in data["matches"]] == ["blocks.0.attn", "blocks.2.attn"]
    assert data["near_misses"][0]["name"] == "blocks.1.attn"
    assert data["extra_parameters"] == report.extra_parameters
    assert data["new_parameters"] == list(report.new_parameters)


CONFIGS = {
    "default": exda.ExDAConfig(),
    "tokens-3": exda.ExDAConfig(tokens=3),
    "no-tokens": exda.ExDAConfig(tokens=0),
    "no-value": exda.ExDAConfig(value="none"),
    "nothing": exda.ExDAConfig(tokens=0, value="none"),
    "gelu": exda.ExDAConfig(value="gelu", init="paper"),
    "channelwise": exda.ExDAConfig(tokens=4, reinject="channelwise"),
}
MODELS = {
    "mdta": lambda: Net(MDTA(bias=True)),
    "cross": lambda: Net(Cross(), inputs=2),
    "histogram": lambda: Net(Histogram()),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("family", MODELS)
def test_new_parameters_are_counted_and_named_beforehand(family, config):
    model = MODELS[family]()
    before = dict(model.named_parameters())
    report = exda.plan(model, CONFIGS[config])
    exda.patch(model, CONFIGS[config])
    added = {name: parameter for name, parameter in model.named_parameters() if name not in before}
    assert report.extra_parameters == sum(parameter.numel() for parameter in added.values())
    assert sorted(report.new_parameters) == sorted(added)


def test_plan_and_patch_agree():
    model = restormer()
    planned = exda.plan(model, include="decoder")
    done = exda.patch(model, include="decoder")
    assert planned.matches == done.matches
    assert (planned.applied, done.applied) == (False, True)


def test_known_backbone_adds_stage_and_downscale():
    match = exda.plan(restormer()).matches[1]
    assert (match.name, match.backbone, match.stage) == ("encoder_level2.0.attn", "restormer", "encoder")
    assert (match.dim, match.heads, match.downscale) == (16, 2, 2)
    assert exda.plan(restormer()).multiple_of == 8


def test_macs_of_a_known_backbone_grow_with_the_image():
    report = exda.plan(restormer())
    assert report.extra_macs(64, 64) > 0
    assert report.extra_macs(128, 64) == pytest.approx(2 * report.extra_macs(64, 64))
    assert exda.plan(restormer(), include="latent").extra_macs(64, 64) < report.extra_macs(64, 64)


def test_macs_of_the_value_branch():
    config = exda.ExDAConfig(tokens=0)
    (match,) = exda.plan(restormer(), config, include="encoder_level1").matches
    # Two 1x1 convolutions of 8 channels and a depthwise 3x3 between them.
    assert match.extra_macs_per_pixel == 2 * 8 * 8 + 9 * 8


def test_macs_of_an_unknown_backbone_are_unknown():
    report = exda.plan(two_blocks())
    assert report.extra_macs(64, 64) is None
    assert report.multiple_of is None
    assert "multiply-accumulates" not in str(report)
