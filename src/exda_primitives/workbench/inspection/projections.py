"""Points in a plane, by t-SNE or UMAP, for the eye: distances between groups mean nothing there."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ConfigError, ExDAError
from ..shared.packages import sklearn, umap
from .embeddings import standardised

Method = Literal["tsne", "umap"]
TITLES: dict[Method, str] = {"tsne": "t-SNE", "umap": "UMAP"}

_LEAST = 5
_NEIGHBOURS = {"tsne": 30.0, "umap": 15.0}


def project(points: Tensor, method: Method = "tsne", seed: int = 0) -> Tensor:
    """Projects points into the plane; every feature is standardised before.

    The same seed gives the same image on the same machine. The number of neighbours that count is each method's own
    (perplexity 30, 15 neighbours), or a third of the points where there are few.

    Args:
        points: (images, features).
        method: ``"tsne"`` (scikit-learn, begun from the principal components) or ``"umap"`` (umap-learn).
        seed: of the method.

    Returns:
        (images, 2) float32.

    Raises:
        ConfigError: for another method, for fewer than 5 points, and for a single feature.
        ExDAError: for points that are not finite, and where the package is missing.
    """
    if method not in TITLES:
        raise ConfigError(f"method must be one of {', '.join(TITLES)}, got {method!r}.")
    if len(points) < _LEAST:
        raise ConfigError(f"a plane of {len(points)} points shows nothing; give {_LEAST} images at least.")
    if points.shape[1] < 2:
        raise ConfigError("a single feature is a line already; give two at least.")
    if not points.isfinite().all():
        raise ExDAError(f"of {points.numel()} features {int((~points.isfinite()).sum())} are not finite numbers.")
    neighbours = min(_NEIGHBOURS[method], (len(points) - 1) / 3)
    projected = _projector(method, neighbours, seed).fit_transform(standardised(points.double()).float().numpy())
    return torch.from_numpy(projected).float()


def _projector(method: Method, neighbours: float, seed: int) -> Any:
    if method == "tsne":
        return sklearn("manifold").TSNE(2, perplexity=neighbours, init="pca", random_state=seed)
    # With a seed there is but one job; said, so that it does not warn.
    return umap().UMAP(n_components=2, n_neighbors=max(2, int(neighbours)), random_state=seed, n_jobs=1)
