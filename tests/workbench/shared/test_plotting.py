"""Matplotlib is asked for by the name of the extra that brings it."""

import sys

import matplotlib.figure
import pytest

from exda_primitives import ExDAError
from exda_primitives.workbench.shared.plotting import matplotlib_figure


def test_the_module_of_figures() -> None:
    assert matplotlib_figure("bench") is matplotlib.figure


@pytest.mark.parametrize("extra", ["bench", "diagnose"])
def test_a_missing_matplotlib_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ExDAError, match=r'pip install "matplotlib>=3\.8"'):
        matplotlib_figure(extra)
