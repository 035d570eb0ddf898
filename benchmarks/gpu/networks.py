"""Restormer, original and patched, each as it is and fused: made once, and left on disk for all stages.

Recognising 44 blocks takes longer than most measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from exda_primitives.workbench.bench.cases import FUSED, FUSED_ORIGINAL, ORIGINAL, REFERENCE
from exda_primitives.workbench.bench.networks import Networks
from exda_primitives.workbench.bench.steps import Bench, Signals

from .checkout import scratch


@dataclass(frozen=True)
class Variant:
    """What is compared.

    Attributes:
        patched: with both primitives in every attention, new parameters as if trained.
        computed: as ``bench.networks`` has it: ``"original"``, ``"fused"`` or a backend.
    """

    patched: bool
    computed: str


VARIANTS = {
    "original": Variant(False, "original"),
    "fused": Variant(True, "fused"),
    "fused-unpatched": Variant(False, "fused"),
    "torch": Variant(True, "torch"),
    "reference": Variant(True, "reference"),
}

_VARIANTS = {
    (False, False): ORIGINAL,
    (False, True): FUSED_ORIGINAL,
    (True, False): REFERENCE,
    (True, True): FUSED,
}
"""By whether patched and fused, those of the library that have the network."""

_THREADS = 4
"""Others compile meanwhile."""


def prepare(network: str) -> None:
    """Writes all four networks, unless they are there."""
    names = {(patched, fused): _path(network, patched, fused) for patched in (False, True) for fused in (False, True)}
    if all(path.exists() for path in names.values()):
        return
    torch.set_num_threads(_THREADS)
    networks = Networks.build(network)
    for of, path in names.items():
        _save(networks.of(_VARIANTS[of]), path)


def network(name: str, variant: Variant) -> nn.Module:
    """A variant's network on the CPU in float32; where it is fused, fusing it again does nothing."""
    prepare(name)
    model: nn.Module = torch.load(_path(name, variant.patched, variant.computed == "fused"), weights_only=False)
    return model


def reference(name: str, bench: Bench, patched: bool) -> Signals:
    """What the formulas give in float64, at this size and on this image."""
    from exda_primitives.workbench.bench.precision import FLOAT64  # noqa: PLC0415

    shape = "x".join(map(str, bench.image.shape))
    path = scratch() / f"{name}-{'patched' if patched else 'original'}-{bench.task}-{shape}.pt"
    if not path.exists():
        variant = VARIANTS["reference" if patched else "original"]
        _save(bench.signals(network(name, variant), variant.computed, FLOAT64), path)
    signals: Signals = torch.load(path)
    return signals


def _path(network: str, patched: bool, fused: bool) -> Path:
    return scratch() / f"{network}-{'patched' if patched else 'original'}{'-fused' if fused else ''}.pt"


def _save(value: object, path: Path) -> None:
    # Whole or not at all: a stage may be ended at any time.
    partial = path.with_suffix(".part")
    torch.save(value, partial)
    partial.rename(path)
