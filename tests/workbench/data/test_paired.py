"""Sets of pairs: what an item depends on, patches, and what is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.workbench.data.images import write_image
from torch.utils.data import DataLoader

from exda_primitives.errors import ConfigError, ImageError
from exda_primitives.workbench.data import Pair, PairedFileSet, PairedSet, open_images
from exda_primitives.workbench.data.benchmarks import FilePair, PairedFiles
from exda_primitives.workbench.data.degradations import degrade

NAMES = ["noise25", "low_rain", "blur"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for number in range(3):
        write_image(root / f"{number}.png", 20 + number, 27, seed=number)
    return root


def same(one: Pair, other: Pair) -> bool:
    return torch.equal(one.degraded, other.degraded) and torch.equal(one.clean, other.clean) and one[2:] == other[2:]


def paired_set(folder: Path, **options: object) -> PairedSet:
    return PairedSet(open_images(folder), NAMES, **options)  # type: ignore[arg-type]


def test_every_image_comes_with_every_degradation_as_often_as_asked(folder: Path) -> None:
    pairs = paired_set(folder, repeats={"blur": 2})
    assert len(pairs) == 12
    listed = [(pair.degradation, pair.name) for pair in pairs]
    assert listed == [
        (name, f"{number}.png") for name in ["noise25", "low_rain", "blur", "blur"] for number in range(3)
    ]
    assert [pair.index for pair in pairs] == list(range(12))


def test_whole_images_for_testing(folder: Path) -> None:
    images = open_images(folder)
    for index, pair in enumerate(paired_set(folder)):
        assert torch.equal(pair.clean, images[index % 3])
        assert pair.degraded.shape == pair.clean.shape
        assert not torch.equal(pair.degraded, pair.clean)


def test_an_item_depends_on_seed_epoch_and_index_and_on_nothing_else(folder: Path) -> None:
    pairs = paired_set(folder, seed=3, patch=16)
    forwards = [pairs[index] for index in range(9)]
    torch.rand(3)
    backwards = [paired_set(folder, seed=3, patch=16)[index] for index in reversed(range(9))]
    assert all(same(one, other) for one, other in zip(forwards, backwards[::-1], strict=True))
    assert not any(same(one, other) for one, other in zip(forwards, paired_set(folder, seed=4, patch=16), strict=True))
    pairs.set_epoch(1)
    assert not any(same(one, other) for one, other in zip(forwards, pairs, strict=True))
    pairs.set_epoch(0)
    assert all(same(one, other) for one, other in zip(forwards, pairs, strict=True))


def test_repeats_of_an_image_differ(folder: Path) -> None:
    pairs = PairedSet(open_images(folder), ["noise25"], repeats={"noise25": 2})
    assert not torch.equal(pairs[0].degraded, pairs[3].degraded)


def test_seeds_that_differ_beyond_32_bits_give_other_items(folder: Path) -> None:
    # A generator on the CPU uses only 32 bits of its seed.
    assert not torch.equal(paired_set(folder, seed=1)[0].degraded, paired_set(folder, seed=1 + (1 << 40))[0].degraded)


def test_the_global_generators_are_left_alone(folder: Path) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    paired_set(folder, patch=16)[4]
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("packed", [False, True])
def test_workers_make_no_difference_even_if_they_outlive_an_epoch(folder: Path, tmp_path: Path, packed: bool) -> None:
    source = open_images(folder)
    if packed:
        np.savez(tmp_path / "some.npz", some=np.random.default_rng(0).integers(0, 256, (3, 20, 27), dtype=np.uint8))
        source = open_images(tmp_path / "some.npz")
        source[0]
    pairs = PairedSet(source, NAMES, patch=16)
    loader = DataLoader(pairs, batch_size=2, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in range(2):
        pairs.set_epoch(epoch)
        seen = {}
        for batch in loader:
            for row, index in enumerate(batch.index.tolist()):
                seen[index] = (batch.degraded[row], batch.clean[row], batch.name[row], batch.degradation[row])
        assert sorted(seen) == list(range(9))
        for index, (degraded, clean, name, degradation) in seen.items():
            assert same(Pair(degraded, clean, name, degradation, index), pairs[index])


def test_it_can_be_copied_and_pickled(folder: Path) -> None:
    pairs = paired_set(folder, patch=8)
    pairs.set_epoch(7)
    for other in (pickle.loads(pickle.dumps(pairs)), copy.deepcopy(pairs)):
        assert same(pairs[5], other[5])


def test_patches_are_flipped_and_turned_in_all_eight_ways(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 9, 9)
    pairs = PairedSet(open_images(tmp_path), ["noise15"], patch=9, repeats={"noise15": 100})
    image = pairs.images[0]
    turns = [torch.rot90(one, k, (1, 2)) for one in (image, image.flip(2)) for k in range(4)]
    counts = [sum(torch.equal(pair.clean, turned) for pair in pairs) for turned in turns]
    assert sum(counts) == 100
    assert min(counts) > 0


def test_patches_come_from_everywhere(tmp_path: Path) -> None:
    grid = np.arange(30, dtype=np.uint8).reshape(1, 5, 6)
    np.savez(tmp_path / "a.npz", grid)
    pairs = PairedSet(open_images(tmp_path / "a.npz", channels=1), ["noise15"], patch=1, repeats={"noise15": 400})
    assert {round(pair.clean.item() * 255) for pair in pairs} == set(range(30))


def test_both_images_of_a_pair_are_cut_and_turned_alike(tmp_path: Path) -> None:
    clean = write_image(tmp_path / "clean.png", 12, 15)
    files = PairedFiles("same", (FilePair(clean, clean, "rain"),))
    for pair in PairedFileSet(files, patch=7, repeats={"rain": 20}):
        assert torch.equal(pair.degraded, pair.clean)
        assert pair.clean.shape == (3, 7, 7)


def test_an_image_is_degraded_whole_before_it_is_cut(folder: Path) -> None:
    # Haze that was paired_set for a patch alone would have its whole ramp in it.
    pairs = PairedSet(open_images(folder), ["haze"], patch=1, repeats={"haze": 60})
    shares = torch.stack([(pair.degraded - pair.clean).abs().mean() for pair in pairs])
    assert shares.std() > 0.02


@pytest.mark.parametrize("patch", [21, 28])
def test_images_smaller_than_the_patch_are_refused(folder: Path, patch: int) -> None:
    with pytest.raises(ImageError, match=rf"0\.png has 20 x 27 pixels, too few for patches of {patch}"):
        paired_set(folder, patch=patch)[0]


def test_an_image_that_cannot_be_read_is_named_through_workers(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    loader = DataLoader(PairedSet(open_images(tmp_path), ["noise15"]), num_workers=1)
    with pytest.raises(ImageError, match=r"b\.png is no image"):
        list(loader)


def test_pairs_of_files(tmp_path: Path) -> None:
    clean, degraded = (write_image(tmp_path / f"{seed}.png", seed=seed) for seed in (1, 2))
    files = PairedFiles("some", (FilePair(clean, degraded, "rain"), FilePair(clean, None, "noise50")))
    pairs = PairedFileSet(files)
    assert [(pair.name, pair.degradation, pair.index) for pair in pairs] == [("2", "rain", 0), ("1", "noise50", 1)]
    assert torch.equal(pairs[0].degraded, files.read(degraded, "rain"))
    assert torch.equal(pairs[0].clean, pairs[1].clean)
    noise = (pairs[1].degraded - pairs[1].clean).std()
    assert 0.1 < noise < 0.3


def test_pairs_of_different_sizes(tmp_path: Path) -> None:
    clean, degraded = write_image(tmp_path / "a.png", 6, 5), write_image(tmp_path / "b.png", 6, 4)
    pairs = PairedFileSet(PairedFiles("some", (FilePair(clean, degraded, "rain"),)), patch=2)
    with pytest.raises(ImageError, match=r"b \(rain\): the degraded image has shape \(3, 6, 4\), the clean one"):
        pairs[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "must not be negative, got -1"),
        ({"patch": 0}, "at least 1 pixel, got 0"),
        ({"repeats": {"haze": 2}}, "each for one of noise25, low_rain, blur"),
        ({"repeats": {"blur": 0}}, "at least 1"),
    ],
)
def test_bad_options_are_refused(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        paired_set(folder, **options)


def test_a_negative_epoch_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="an epoch must not be negative, got -1"):
        paired_set(folder).set_epoch(-1)


def test_bad_degradations_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'fog'; there are: noise15"):
        PairedSet(open_images(folder), ["rain", "fog"])
    with pytest.raises(ConfigError, match="no degradation"):
        PairedSet(open_images(folder), [])


def test_the_seed_of_an_item_is_mixed_from_seed_epoch_and_index(folder: Path) -> None:
    # Pinned: another way to mix the three would change the data of every training.
    mixed = int(np.random.SeedSequence([3, 2, 1]).generate_state(1, np.uint64)[0])
    pairs = PairedSet(open_images(folder), ["snow"], seed=3)
    pairs.set_epoch(2)
    assert torch.equal(pairs[1].degraded, degrade(pairs[1].clean, "snow", mixed))
