"""Makes the networks that the other stages measure."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from .. import networks
from ..launches import Recording
from ..stage import Run

NETWORK = "restormer"
"""A name in ``bench.networks.BACKBONES``."""


def options(parser: argparse.ArgumentParser) -> None:
    pass


def recordings(options: argparse.Namespace) -> Iterable[Recording]:
    return ()


def run(run: Run, options: argparse.Namespace) -> None:
    begun = time.perf_counter()
    networks.prepare(NETWORK)
    run.rows.write("networks", process_seconds=time.perf_counter() - begun)
