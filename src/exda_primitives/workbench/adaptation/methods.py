"""Which new parameters an adaptation trains; the host's own stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

RANK = 8
"""Rank of LoRA, unless the user changes it."""


class Method(NamedTuple):
    """New parameters, and the learning rates that are tried for them.

    Attributes:
        sections: sections ``primitives`` and ``lora`` of the training configuration.
        rates: learning rates, the middle one for runs that are too short for a search.
        about: what is trained, for the command's help and tables.
    """

    sections: Mapping[str, Mapping[str, Any]]
    rates: tuple[float, float, float]
    about: str


_EXDA: Mapping[str, Any] = {"tokens": 1, "value": "residual", "init": "identity"}
_LORA: Mapping[str, Any] = {"rank": RANK, "layers": "all"}

# The rates are those that were best or next to it in the adaptation benchmark, benchmarks/results/adaptation.md.
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "lora": Method({"lora": _LORA}, (3e-3, 1e-2, 3e-2), "LoRA in all layers"),
        "exda": Method({"primitives": _EXDA}, (1e-2, 3e-2, 1e-1), "ExDA's primitives in all attentions"),
        "both": Method({"primitives": _EXDA, "lora": _LORA}, (3e-3, 1e-2, 3e-2), "both"),
    }
)
"""Name -> method; the first is the default, since it restored best in the adaptation benchmark."""
