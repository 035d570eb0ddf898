import pytest


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """Leaves out the plot, which takes longer than these runs; tests/cli/test_train.py checks it."""
    monkeypatch.setattr("exda_primitives.workbench.training.run.draw", lambda history, path: None)
