"""k-means against true labels."""

import pytest
import torch

import exda_primitives as exda
from exda_primitives.workbench.inspection import agreement

LABELS = ["noise"] * 8 + ["rain"] * 8 + ["haze"] * 8


def points(apart: float) -> torch.Tensor:
    noise = torch.randn(24, 5, generator=torch.Generator().manual_seed(0))
    return noise + apart * torch.eye(5)[:3].repeat_interleave(8, 0)


def test_distant_groups_agree_with_their_labels() -> None:
    for score in agreement(points(30), LABELS, range(3)):
        assert (score.nmi, score.ari) == (1.0, 1.0)


def test_random_points_do_not_agree_with_their_labels() -> None:
    for score in agreement(points(0), LABELS, range(3)):
        assert abs(score.ari) < 0.2
        assert score.nmi < 0.4


def test_scores_of_a_partial_agreement_by_hand() -> None:
    """One cluster is rain; each of the others has half of the noise and half of the haze."""
    of_clusters = torch.tensor([0.0] * 4 + [10.0] * 4 + [30.0] * 8 + [0.0] * 4 + [10.0] * 4)
    (score,) = agreement(of_clusters[:, None], LABELS, [0])
    # Labels and clusters have entropy ln 3; in two thirds of the points, noise and haze, ln 2 of it stays unknown.
    mutual = (torch.tensor(3.0).log() - 2 / 3 * torch.tensor(2.0).log()) / torch.tensor(3.0).log()
    assert score.nmi == pytest.approx(float(mutual), abs=1e-6)
    # Of all 276 pairs of points, 84 share a label, 84 share a cluster, and 28 + 4 * 6 share both.
    expected = 84 * 84 / 276
    assert score.ari == pytest.approx((52 - expected) / (84 - expected))


def test_the_scale_of_a_feature_does_not_count() -> None:
    scaled = points(8) * torch.tensor([1, 1e-4, 1, 1e6, 1])
    assert [s[1:] for s in agreement(scaled, LABELS, [0])] == [s[1:] for s in agreement(points(8), LABELS, [0])]


def test_a_seed_gives_the_same_scores() -> None:
    twice = [agreement(points(2), LABELS, range(4)) for _ in range(2)]
    assert twice[0] == twice[1]
    assert [score.seed for score in twice[0]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["rain"] * 24, "only rain"),
        (LABELS[1:], "label for each of 24 images, got 23"),
        ([str(i) for i in range(24)], "24 images cannot be clustered into 24"),
    ],
)
def test_unusable_labels_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(exda.ConfigError, match=message):
        agreement(points(1), labels)


def test_no_points_are_refused() -> None:
    with pytest.raises(exda.ConfigError, match="there is none"):
        agreement(torch.empty(0, 3), [])


def test_no_seeds_are_refused() -> None:
    with pytest.raises(exda.ConfigError, match="no seeds"):
        agreement(points(1), LABELS, [])


def test_equal_points_are_refused() -> None:
    with pytest.raises(exda.ConfigError, match="only 1 of the points are different"):
        agreement(torch.ones(24, 5), LABELS)


def test_points_that_are_not_finite_are_refused() -> None:
    broken = points(1)
    broken[3, 2] = torch.nan
    with pytest.raises(exda.ExDAError, match="of 120 features 1 are not finite"):
        agreement(broken, LABELS)
