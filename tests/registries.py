"""Registries whose changes end with a test."""

from __future__ import annotations

import pytest

from exda_primitives.models.registry import ARCHITECTURES
from exda_primitives.patching.registry import BACKBONES, FAMILIES, load_adapters


def forget_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets what is registered from now on when the test ends."""
    load_adapters()
    for registry in (FAMILIES, BACKBONES, ARCHITECTURES):
        monkeypatch.setattr(registry, "known", dict(registry.known))
