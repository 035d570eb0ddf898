"""The bandwidth floor."""

from dataclasses import replace

import torch
from tests.workbench.bench.stubs import COMPARISON, CPU

import exda_primitives as exda
from exda_primitives.workbench.bench.bandwidth_floor import copy_bandwidth, floor_bytes
from exda_primitives.workbench.bench.networks import BACKBONES


def test_the_floor_of_restormer_as_counted_by_hand() -> None:
    report = exda.plan(BACKBONES["restormer-tiny"]())
    # Blocks by level: one at full size with 8 channels, two (decoder, refinement) with 16; then 16, 32, 64 channels.
    maps = [(8, 1), (16, 1), (16, 1), (16, 2), (16, 2), (32, 4), (32, 4), (64, 8)]
    # Three maps per block: float32 has 4 bytes per number, bf16 2.
    numbers = sum(3 * channels * (16 // down) * (24 // down) for channels, down in maps)
    assert floor_bytes(report, COMPARISON) == 4 * numbers
    assert floor_bytes(report, replace(COMPARISON, precision="bf16", batch=3)) == 3 * 2 * numbers


def test_every_family_has_a_floor() -> None:
    # AdaIR has Restormer's and PromptIR's attentions as well.
    for name in ("adair", "histoformer"):
        with torch.device("meta"):
            report = exda.plan(BACKBONES[name]())
        assert floor_bytes(report, COMPARISON)


def test_an_unknown_network_has_no_floor() -> None:
    report = exda.plan(BACKBONES["restormer-tiny"]())
    unknown = replace(report, matches=(replace(report.matches[0], downscale=None), *report.matches[1:]))
    assert floor_bytes(unknown, COMPARISON) is None


def test_the_copy_bandwidth_is_positive() -> None:
    assert copy_bandwidth(CPU) > 0
