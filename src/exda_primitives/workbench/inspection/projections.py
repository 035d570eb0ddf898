"""Projects points into a plane by t-SNE or UMAP, to look at: distances between groups have no meaning there."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ConfigError
from ..shared.packages import sklearn, umap
from .embeddings import standardised

Method = Literal["tsne", "umap"]
TITLES: dict[Method, str] = {"tsne": "t-SNE", "umap": "UMAP"}

_MIN_POINTS = 5
# The defaults of the two packages: perplexity, and number of neighbours.
_NEIGHBOURS = {"tsne": 30.0, "umap": 15.0}


def project(points: Tensor, method: Method = "tsne", seed: int = 0) -> Tensor:
    """Projects points into a plane; every feature is standardised first.

    The same seed gives the same projection on the same machine. The neighbourhood has each package's default size
    (perplexity 30 for t-SNE, 15 neighbours for UMAP), or a third of the points if that is less.

    Args:
        points: (images, features).
        method: ``"tsne"`` (scikit-learn, started from the principal components) or ``"umap"`` (umap-learn).
        seed: seed of the method.

    Returns:
        (images, 2) float32.

    Raises:
        ConfigError: for another method, for fewer than 5 points, and for a single feature.
        ExDAError: for points that are not finite, and if the package is not installed.
    """
    if method not in TITLES:
        raise ConfigError(f"method must be one of {', '.join(TITLES)}, got {method!r}.")
    if len(points) < _MIN_POINTS:
        raise ConfigError(f"a plane of {len(points)} points shows too little; give {_MIN_POINTS} images at least.")
    if points.shape[1] < 2:
        raise ConfigError("found a single feature, which cannot be projected into a plane; give at least two.")
    neighbours = min(_NEIGHBOURS[method], (len(points) - 1) / 3)
    projected = _projector(method, neighbours, seed).fit_transform(standardised(points.double()).float().numpy())
    return torch.from_numpy(projected).float()


def _projector(method: Method, neighbours: float, seed: int) -> Any:
    if method == "tsne":
        return sklearn("manifold").TSNE(2, perplexity=neighbours, init="pca", random_state=seed)
    # With a seed UMAP runs a single job, and warns unless n_jobs=1 says so.
    return umap().UMAP(n_components=2, n_neighbors=max(2, int(neighbours)), random_state=seed, n_jobs=1)
