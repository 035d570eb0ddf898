import pytest
import torch
from tests.registries import forget_afterwards


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    forget_afterwards(monkeypatch)
