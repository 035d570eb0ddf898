"""Measures Python's time for a forward pass, without waiting for the GPU."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable

import torch

from exda_primitives.models.blocks import TransformerBlock
from exda_primitives.workbench.bench.networks import copy_for_variant, variant_backend

from .. import blocks, networks, tuning
from ..device import Device
from ..launches import Recording
from ..networks import VARIANTS
from ..stage import Run
from .networks import NETWORK

SIDE = 64
"""Side of the image in pixels: so small that the GPU finishes before Python does."""

_VARIANTS = ("original", "fused", "fused-unpatched")
_WARM_UPS, _TURNS = 3, 10
_ADDITIONS = 2000


def options(parser: argparse.ArgumentParser) -> None:
    pass


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    for name in _VARIANTS:
        if VARIANTS[name].computed == "fused":
            for block in blocks.of_network(SIDE, SIDE, patched=VARIANTS[name].patched):
                yield Recording(block, "bf16", every=False)


def run(run: Run, options: argparse.Namespace) -> None:
    # Without tuning: the choice of configuration does not change Python's time.
    tuning.first_configuration()
    image = torch.rand(1, 3, SIDE, SIDE, device=run.device.torch).to(torch.bfloat16)
    run.rows.write("addition", microseconds=addition(run.device))
    original = networks.network(NETWORK, VARIANTS["original"])
    held = sum(isinstance(module, TransformerBlock) for module in original.modules())
    for name in _VARIANTS:
        if run.left() < 0:
            return
        with run.surviving(variant=name), torch.no_grad():
            variant = VARIANTS[name]
            model = copy_for_variant(
                networks.network(NETWORK, variant), variant.computed, run.device.torch, torch.bfloat16
            )
            seconds = []
            for _ in range(_WARM_UPS + _TURNS):
                # An idle GPU at the start; the clock stops when Python is done, not the GPU.
                run.device.wait()
                begun = time.perf_counter()
                with variant_backend(variant.computed):
                    model(image)
                seconds.append(time.perf_counter() - begun)
            median = statistics.median(seconds[_WARM_UPS:])
            run.rows.write("host", variant=name, ms=1e3 * median, microseconds_a_block=1e6 * median / held)


def addition(device: Device) -> float:
    """Returns the microseconds that PyTorch takes to start a kernel, that of a small addition."""
    x = torch.zeros(8, device=device.torch)
    device.wait()
    begun = time.perf_counter()
    for _ in range(_ADDITIONS):
        x + x
    seconds = time.perf_counter() - begun
    device.wait()
    return 1e6 * seconds / _ADDITIONS
