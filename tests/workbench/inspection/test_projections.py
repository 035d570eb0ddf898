"""Projections of points onto a plane by t-SNE and UMAP."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch

import exda_primitives as exda
from exda_primitives.workbench.inspection import project
from exda_primitives.workbench.shared.packages import has_umap


def groups(number: int = 8) -> torch.Tensor:
    noise = torch.randn(2 * number, 6, generator=torch.Generator().manual_seed(0))
    return noise + 20 * (torch.arange(2 * number) < number)[:, None]


def test_tsne_keeps_groups_apart() -> None:
    found = project(groups(), "tsne")
    assert found.shape == (16, 2)
    assert found.dtype == torch.float32
    first, second = found[:8], found[8:]
    within = max((group - group.mean(0)).norm(dim=1).max() for group in (first, second))
    assert (first.mean(0) - second.mean(0)).norm() > 2 * within


def test_a_seed_gives_the_same_projection() -> None:
    assert torch.equal(project(groups(), seed=3), project(groups(), seed=3))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each call of a fake umap-learn, which returns the first two features."""
    made: list[dict[str, Any]] = []

    class UMAP:
        def __init__(self, **options: Any) -> None:
            made.append(options)

        def fit_transform(self, points: Any) -> Any:
            return points[:, :2]

    module = ModuleType("umap")
    module.__spec__ = ModuleSpec("umap", None)
    vars(module)["UMAP"] = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    return made


def test_umap_takes_standardised_points_and_the_seed(calls: list[dict[str, Any]]) -> None:
    assert has_umap()
    found = project(groups(), "umap", seed=7)
    assert calls == [{"n_components": 2, "n_neighbors": 5, "random_state": 7, "n_jobs": 1}]
    # The points were standardised.
    assert torch.allclose(found.square().mean(0), torch.ones(2), atol=1e-5)


def test_a_missing_umap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    assert not has_umap()
    with pytest.raises(exda.ExDAError, match=r"pip install \"umap-learn"):
        project(groups(), "umap")


@pytest.mark.parametrize(
    ("points", "method", "message"),
    [
        (groups(2), "tsne", "a plane of 4 points"),
        (groups()[:, :1], "tsne", "single feature"),
        (groups(), "pca", "one of tsne, umap"),
    ],
)
def test_what_cannot_be_projected_is_refused(points: torch.Tensor, method: Any, message: str) -> None:
    with pytest.raises(exda.ConfigError, match=message):
        project(points, method)


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(exda.ExDAError, match="not finite"):
        project(groups() / 0)
