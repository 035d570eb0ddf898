import pytest


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """Drawing takes longer than these runs; tests/cli/test_train.py looks at the image."""
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)
