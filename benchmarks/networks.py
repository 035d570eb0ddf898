"""Whole networks at the sizes that their authors published, with random weights, each to be measured by its name.

::

    exda bench mine benchmarks/networks.py:restormer --size 256 --out benchmarks/results/cpu_networks/restormer

Weights have no say in how long a forward pass takes.
"""

from __future__ import annotations

from typing import Any

from torch import nn

import exda_primitives as exda


def restormer() -> nn.Module:
    return exda.models.create("restormer")


def promptir() -> nn.Module:
    return exda.models.create("promptir")


def adair() -> nn.Module:
    return exda.models.create("adair")


def moceir() -> nn.Module:
    return exda.models.create("moceir")


def histoformer() -> nn.Module:
    return exda.models.create("histoformer")


def kbnet() -> nn.Module:
    """KBNet_l, as spandrel has it."""
    from spandrel.architectures import KBNet  # noqa: PLC0415

    network: Any = KBNet.KBNet_l
    return network()
