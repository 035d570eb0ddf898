"""Whatever a checkpoint holds, it is read, or refused by an ExDAError with nothing changed; and no code is run."""

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
# PyTorch's warning about sparse tensors, which the library then refuses itself.
pytestmark = pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")


@contextmanager
def written(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


@given(name=st.sampled_from(sorted(whole_files())), mutation=st.sampled_from(sorted(MUTATIONS)), seed=st.integers(0))
@settings(deadline=None, max_examples=300)
def test_damaged_file_is_read_or_refused(name: str, mutation: str, seed: int) -> None:
    with written(name, MUTATIONS[mutation](files()[name], Random(seed))) as path:
        attack(path)


@given(suffix=st.sampled_from([".pth", ".ckpt", ".safetensors"]), data=st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_noise_is_refused(suffix: str, data: bytes) -> None:
    with written(f"model{suffix}", data) as path:
        assert not attack(path)


@pytest.mark.parametrize("name", sorted(whole_files()))
def test_whole_files_are_read(name: str) -> None:
    with written(name, files()[name]) as path:
        assert attack(path)


@pytest.mark.parametrize("name", sorted(files()))
def test_truncated_files_are_refused(name: str) -> None:
    data = files()[name]
    for kept in (*range(0, 40), *range(40, len(data), len(data) // 20), *range(len(data) - 10, len(data))):
        with written(name, data[:kept]) as path:
            assert not attack(path), kept


@pytest.mark.parametrize("name", sorted(crafted()))
def test_crafted_files_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(crafted()[name])
    assert not attack(path)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_missing_paths_folders_broken_links_and_fifos_are_refused(name: str, tmp_path: Path) -> None:
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


def test_too_long_name_is_refused(tmp_path: Path) -> None:
    assert not attack(tmp_path / ("a" * 300 + ".pth"))


def changes_weights_and_refuses(model: Small) -> None:
    with unchanged_if_refused(model):
        model.tail.weight.data.zero_()
        raise exda.CheckpointError


def patches_and_refuses(model: Small) -> None:
    with unchanged_if_refused(model):
        exda.patch(model)
        raise exda.CheckpointError


def test_changes_by_a_reader_that_refuses_are_noticed() -> None:
    with pytest.raises(AssertionError, match="weights were changed"):
        changes_weights_and_refuses(Small())
    with pytest.raises(AssertionError, match="modules were replaced"):
        patches_and_refuses(Small())


def test_networks_are_so_small_that_damage_hits_every_part() -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) < 40_000
