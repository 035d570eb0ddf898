"""Builds a wider network that computes the same as the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import exda_primitives as exda

SEED = 0
"""Seed of the weights that make the new channels."""


def widened(host: nn.Module, model: Mapping[str, Any], factor: float) -> nn.Module:
    """Returns a Restormer with wider feed-forwards, whose new channels have no effect at first.

    The weights that read the new channels (columns of ``project_out``) are zero; those that make them are random,
    because with both zero neither would get a gradient. The first half of the hidden channels are gates, the second
    half what they gate; the new channels come at the end of each half.

    Args:
        host: a Restormer.
        model: its arguments.
        factor: ``ffn_expansion_factor`` of the wider network.

    Returns:
        A network that computes the same as the host, up to the order of sums.
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
                # project_in and the depthwise convolution: output channels in two halves, new ones at each one's end.
                for theirs, ours in zip(held.chunk(2), into.chunk(2), strict=True):
                    ours[: len(theirs)] = theirs
    return wide
