"""Restormer, original or patched, plain or fused: made once and kept on disk for all stages.

They are kept because recognising 44 blocks takes longer than most measurements.
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
    """A network and the way in which it is computed.

    Attributes:
        patched: whether it has both primitives in every attention, with new parameters as if trained.
        computed: ``"original"``, ``"fused"`` or a backend, as in ``bench.networks``.
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
"""(patched, fused) -> the variant of ``exda bench`` that has this network."""

_THREADS = 4
"""Threads for making the networks; other processes compile at the same time."""


def prepare(network: str) -> None:
    """Writes all four networks to the scratch folder unless they exist."""
    names = {(patched, fused): _path(network, patched, fused) for patched in (False, True) for fused in (False, True)}
    if all(path.exists() for path in names.values()):
        return
    torch.set_num_threads(_THREADS)
    networks = Networks.build(network)
    for of, path in names.items():
        _save(networks.of(_VARIANTS[of]), path)


def network(name: str, variant: Variant) -> nn.Module:
    """Returns a variant's network on the CPU in float32; a fused variant's is fused already."""
    prepare(name)
    model: nn.Module = torch.load(_path(name, variant.patched, variant.computed == "fused"), weights_only=False)
    return model


def reference(name: str, bench: Bench, patched: bool) -> Signals:
    """Returns the float64 result of the formulas as printed, for the bench's task and image; kept on disk."""
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
    # Written aside and renamed: a stage may be killed at any time, and a file must be whole or absent.
    partial = path.with_suffix(".part")
    torch.save(value, partial)
    partial.rename(path)
