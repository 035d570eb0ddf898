"""Recipes and ablations by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "promptir": {
            "data": {"patch": 128, "workers": 4},
            "recipe": {
                "epochs": 120,
                "batch": 8,
                "learning_rate": 2e-4,
                # The warm-up takes 15 of the 120 epochs; the cosine would reach 0 after 150.
                "warm_up": 0.125,
                "cosine_to": 1.25,
            },
        },
        "budget": {
            "data": {"patch": 64},
            "recipe": {
                "steps": 2000,
                "batch": 4,
                "learning_rate": 2e-3,
                "warm_up": 0.05,
                "weight_decay": 1e-4,
                "clip": 1.0,
                "ema": 0.999,
            },
        },
    }
)
"""Name for a file's ``base`` -> what it stands for; the file's own values win.

- ``promptir``: the recipe of PromptIR, AdaIR (except for its length) and MoCE-IR: patches of 128 pixels, 8 for each
  device (they used 4 devices), AdamW with 2e-4, L1. They change the learning rate between epochs, this one each step.
- ``budget``: trains a small network (dim 16, one block per level) in a quarter of an hour on one CPU core.
"""

ABLATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "a": {"tokens": 0, "value": "none"},
        "b": {"tokens": 0, "value": "replace"},
        "c": {"tokens": 0, "value": "residual"},
        "d": {"tokens": 1, "value": "none"},
        "e": {"tokens": 1, "value": "replace"},
        "f": {"tokens": 1, "value": "residual", "value_position": "after"},
        "g": {"tokens": 1, "value": "residual"},
    }
)
"""Letter for ``primitives.ablation`` -> what it stands for; the file's own values win.

(a) the host; (b) g(V) instead of V; (c) V + g(V); (d) tokens; (e) tokens and g(V); (f) tokens and, after the
aggregation, O + g(O); (g) tokens and V + g(V), the whole method. All with ``init="paper"``: (b) and (e) have no other.

It is not known which components the paper means by its letters; these are our reading, from the host to the whole
method.
"""

ABLATION_INIT = "paper"
"""The ``init`` of all ablations."""
