"""Whole networks at the sizes that their authors published, with random weights, to be measured by name.

::

    exda bench mine benchmarks/networks.py:restormer --size 256 --out benchmarks/results/cpu_networks/restormer

The time of a forward pass does not depend on the weights.
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
    """Returns KBNet_l in spandrel's implementation."""
    from spandrel.architectures import KBNet  # noqa: PLC0415

    network: Any = KBNet.KBNet_l
    return network()
