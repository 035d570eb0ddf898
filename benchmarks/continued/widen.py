"""A wider network that computes what the host does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import exda_primitives as exda

SEED = 0
"""Of what goes into the new channels."""


def widened(host: nn.Module, model: Mapping[str, Any], factor: float) -> nn.Module:
    """A Restormer with wider feed-forwards, whose new channels start without an effect.

    What reads the new channels (the columns of ``project_out``) is zero; what makes them is random, or they would get
    no gradient. Of the channels, the first half are gates and the second what they gate: the new ones stand at the end
    of each half.

    Args:
        host: a Restormer.
        model: its arguments.
        factor: ``ffn_expansion_factor`` of the wider one.

    Returns:
        Computes what the host does, but for the order of sums.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        wide = exda.models.create("restormer", **{**model, "ffn_expansion_factor": factor})
    state = wide.state_dict()
    with torch.no_grad():
        for name, held in host.state_dict().items():
            into = state[name]
            if name.endswith("ffn.project_out.weight"):
                into.zero_()
                into[:, : held.shape[1]] = held
            elif into.shape == held.shape:
                into.copy_(held)
            else:
                for theirs, ours in zip(held.chunk(2), into.chunk(2), strict=True):
                    ours[: len(theirs)] = theirs
    return wide
