"""Whatever a picture file holds: an ImageError, or a picture."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import pytest
from benchmarks.fuzzing.images import attack, crafted_pictures, whole_pictures
from benchmarks.fuzzing.mutations import MUTATIONS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pictures = cache(whole_pictures)
crafted = cache(crafted_pictures)
# A folder for all examples: each writes its file anew.
one_folder = settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(name=st.sampled_from(sorted(pictures())), mutation=st.sampled_from(sorted(MUTATIONS)), seed=st.integers(0))
@one_folder
def test_damaged(name: str, mutation: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(MUTATIONS[mutation](pictures()[name], Random(seed)))
    attack(path)


@given(data=st.binary(max_size=300))
@one_folder
def test_noise_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(data)
    assert not attack(path)


@pytest.mark.parametrize("name", sorted(pictures()))
def test_whole_pictures_are_taken_and_cut_ones_are_not(name: str, tmp_path: Path) -> None:
    path, data = tmp_path / name, pictures()[name]
    path.write_bytes(data)
    assert attack(path)
    for kept in range(0, len(data) * 9 // 10, max(len(data) // 60, 1)):
        path.write_bytes(data[:kept])
        assert not attack(path), kept


@pytest.mark.parametrize("name", sorted(crafted().keys() - {"bomb.png"}))
def test_crafted(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(crafted()[name])
    assert not attack(path)


def test_more_pixels_than_the_header_says_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(crafted()["bomb.png"])
    assert attack(path)
