import pytest
import torch

from exda_primitives.patching import registry


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_families", dict(registry.known_families()))
    monkeypatch.setattr(registry, "_backbones", dict(registry.known_backbones()))
    monkeypatch.setattr(registry, "_architectures", dict(registry.known_architectures()))
