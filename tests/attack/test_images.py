"""Whatever an image file holds, it is read, or refused by an ImageError."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import pytest
from benchmarks.fuzzing.images import attack, crafted_images, whole_images
from benchmarks.fuzzing.mutations import MUTATIONS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

images = cache(whole_images)
crafted = cache(crafted_images)
# All examples share one folder: each overwrites its file.
one_folder = settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(name=st.sampled_from(sorted(images())), mutation=st.sampled_from(sorted(MUTATIONS)), seed=st.integers(0))
@one_folder
def test_damaged_image_is_read_or_refused(name: str, mutation: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(MUTATIONS[mutation](images()[name], Random(seed)))
    attack(path)


@given(data=st.binary(max_size=300))
@one_folder
def test_noise_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(data)
    assert not attack(path)


@pytest.mark.parametrize("name", sorted(images()))
def test_whole_images_are_read_and_truncated_ones_refused(name: str, tmp_path: Path) -> None:
    path, data = tmp_path / name, images()[name]
    path.write_bytes(data)
    assert attack(path)
    for kept in range(0, len(data) * 9 // 10, max(len(data) // 60, 1)):
        path.write_bytes(data[:kept])
        assert not attack(path), kept


@pytest.mark.parametrize("name", sorted(crafted().keys() - {"bomb.png"}))
def test_crafted_images_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(crafted()[name])
    assert not attack(path)


def test_more_pixels_than_the_header_says_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(crafted()["bomb.png"])
    assert attack(path)
