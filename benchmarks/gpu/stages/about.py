"""Describes what the figures are measured on: machine, versions, code, and the GPU's two peak rates."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import torch

from exda_primitives.workbench.bench.bandwidth_floor import copy_bandwidth
from exda_primitives.workbench.bench.timing import clock
from exda_primitives.workbench.shared.machine import machine

from ..checkout import fingerprint, packed_commit
from ..launches import Recording
from ..stage import Run
from .host import addition

_PACKAGES = ("einops", "numpy", "safetensors", "timm", "triton", "typer")
SIDE = 8192
"""Side of the square matrices whose product shows the peak arithmetic rate."""

_TURNS = 6


def options(parser: argparse.ArgumentParser) -> None:
    pass


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    return ()


def run(run: Run, options: argparse.Namespace) -> None:
    packages = {name: _version(name) for name in _PACKAGES}
    about = machine(run.device.torch) | {"fingerprint": fingerprint(), "packages": packages}
    about["commit"] = packed_commit() or about["commit"]
    # Written before the copy and the product, which may fail.
    run.rows.write("machine", **about)
    run.rows.write(
        "ceilings",
        copy_terabytes_per_second=copy_bandwidth(run.device.torch) / 1e12,
        product_teraflops=_product(run) / 1e12,
        microseconds_of_an_addition=addition(run.device),
    )


def _product(run: Run) -> float:
    """Returns the floating-point operations per second of a product of square bfloat16 matrices."""
    a = torch.randn(SIDE, SIDE, device=run.device.torch, dtype=torch.bfloat16)
    timed = clock(run.device.torch)
    seconds = [timed(lambda: a @ a) for _ in range(_TURNS)][2:]
    # A multiplication and an addition for each of SIDE^3 terms.
    return 2 * SIDE**3 / statistics.median(seconds)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
