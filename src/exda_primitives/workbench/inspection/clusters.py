"""Measures whether images of one degradation form a cluster: k-means against the true labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from ...errors import ConfigError
from ..shared.packages import sklearn
from .embeddings import standardised

STARTS = 10
"""Random starts of k-means for each seed; the best one counts."""


class Score(NamedTuple):
    """How well clusters agree with the labels.

    Attributes:
        seed: seed of k-means.
        nmi: normalised mutual information (arithmetic mean), 0 to 1. Not corrected for chance: with few images for
            each label, random points score far above 0.
        ari: adjusted Rand index, about 0 for random points, 1 for perfect agreement.
    """

    seed: int
    nmi: float
    ari: float


def agreement(points: Tensor, labels: Sequence[str], seeds: Iterable[int] = range(10)) -> list[Score]:
    """Clusters points by k-means, with as many clusters as different labels, and compares clusters and labels.

    Every feature is standardised first. The same seed gives the same clusters.

    Args:
        points: (images, features), see ``embeddings``.
        labels: the true degradation of each image.
        seeds: seeds of k-means, which takes the best of 10 starts for each.

    Returns:
        One score for each seed.

    Raises:
        ConfigError: if the numbers of labels and points differ, if there are fewer than two different labels, no more
            images than different labels, no seeds, or fewer different points than different labels.
        ExDAError: for points that are not finite, and if scikit-learn is not installed.

    Examples:
        >>> import torch
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
        >>> agreement(points, ["haze", "haze", "rain", "rain", "noise", "noise"], seeds=[0])
        [Score(seed=0, nmi=1.0, ari=1.0)]
    """
    check_labels(labels, len(points))
    return _scores(standardised(points.double()), labels, list(seeds))


def check_labels(labels: Sequence[str], images: int) -> None:
    """Checks that clusters of this many images can be compared with these labels.

    Raises:
        ConfigError: see ``agreement``.
    """
    different = len(set(labels))
    if len(labels) != images:
        raise ConfigError(f"expected a label for each of {images} images, got {len(labels)}.")
    if different < 2:
        raise ConfigError(
            f"NMI and ARI compare clusters with labels, of which there is {'only ' + labels[0] if labels else 'none'}; "
            "give images of at least two degradations."
        )
    if images <= different:
        raise ConfigError(
            f"{images} images cannot be clustered into {different} labels: every cluster would be a single image; give "
            "several images of each label."
        )


def _scores(points: Tensor, labels: Sequence[str], seeds: list[int]) -> list[Score]:
    clusters = len(set(labels))
    if not seeds:
        raise ConfigError("no seeds: nothing to cluster.")
    different = len(points.unique(dim=0))
    if different < clusters:
        raise ConfigError(f"only {different} of the points are different, too few for {clusters} clusters.")
    cluster, metrics = sklearn("cluster"), sklearn("metrics")
    scores = []
    for seed in seeds:
        found = cluster.KMeans(clusters, n_init=STARTS, random_state=seed).fit_predict(points.numpy())
        nmi = float(metrics.normalized_mutual_info_score(labels, found))
        scores.append(Score(seed, nmi, float(metrics.adjusted_rand_score(labels, found))))
    return scores
