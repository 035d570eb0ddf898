"""Whatever a file holds: an error of the library's own and nothing changed, or it is taken; and no code is run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random

import pytest
from benchmarks.fuzzing.checkpoints import Small, attack, network, unchanged_if_refused, whole_files
from benchmarks.fuzzing.crafted import crafted_files
from benchmarks.fuzzing.mutations import MUTATIONS
from hypothesis import given, settings
from hypothesis import strategies as st

import exda_primitives as exda

files = cache(whole_files)
crafted = cache(crafted_files)
# PyTorch on tensors that the library refuses in its turn.
pytestmark = pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")


@contextmanager
def written(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


@given(name=st.sampled_from(sorted(whole_files())), mutation=st.sampled_from(sorted(MUTATIONS)), seed=st.integers(0))
@settings(deadline=None, max_examples=300)
def test_damaged(name: str, mutation: str, seed: int) -> None:
    with written(name, MUTATIONS[mutation](files()[name], Random(seed))) as path:
        attack(path)


@given(suffix=st.sampled_from([".pth", ".ckpt", ".safetensors"]), data=st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_noise_is_refused(suffix: str, data: bytes) -> None:
    with written(f"model{suffix}", data) as path:
        assert not attack(path)


@pytest.mark.parametrize("name", sorted(whole_files()))
def test_whole_files_are_taken(name: str) -> None:
    with written(name, files()[name]) as path:
        assert attack(path)


@pytest.mark.parametrize("name", sorted(files()))
def test_every_length_near_the_ends(name: str) -> None:
    data = files()[name]
    for kept in (*range(0, 40), *range(40, len(data), len(data) // 20), *range(len(data) - 10, len(data))):
        with written(name, data[:kept]) as path:
            assert not attack(path), kept


@pytest.mark.parametrize("name", sorted(crafted()))
def test_crafted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(crafted()[name])
    assert not attack(path)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert not attack(path)
    path.mkdir()
    assert not attack(path)
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    assert not attack(path)
    path.unlink()
    os.mkfifo(path)
    assert not attack(path)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert not attack(tmp_path / ("a" * 300 + ".pth"))


def empties_and_refuses(model: Small) -> None:
    with unchanged_if_refused(model):
        model.tail.weight.data.zero_()
        raise exda.CheckpointError


def patches_and_refuses(model: Small) -> None:
    with unchanged_if_refused(model):
        exda.patch(model)
        raise exda.CheckpointError


def test_a_reader_that_changed_something_would_be_seen() -> None:
    with pytest.raises(AssertionError, match="weights were changed"):
        empties_and_refuses(Small())
    with pytest.raises(AssertionError, match="modules were replaced"):
        patches_and_refuses(Small())


def test_the_networks_are_small_enough_to_be_hit_everywhere() -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) < 40_000
