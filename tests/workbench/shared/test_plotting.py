"""Matplotlib is imported on demand, and its absence is explained."""

import sys

import matplotlib.figure
import pytest

from exda_primitives import ExDAError
from exda_primitives.workbench.shared.plotting import matplotlib_figure


def test_matplotlibs_module_of_figures_is_returned() -> None:
    assert matplotlib_figure("bench") is matplotlib.figure


@pytest.mark.parametrize("extra", ["bench", "diagnose"])
def test_a_missing_matplotlib_is_named(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ExDAError, match=r'pip install "matplotlib>=3\.8"'):
        matplotlib_figure(extra)
