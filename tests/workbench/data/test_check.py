"""All images of a set are checked before the work."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.workbench.data.images import write_image, write_images
from tests.workbench.data.test_headers import ON_ITS_SIDE, with_orientation

from exda_primitives.errors import ImageError
from exda_primitives.workbench.data import Checked, PairedFileSet, PairedSet, check, open_images, paired_folders


def check_clean(path: Path, patch: int | None = None) -> Checked:
    return check(PairedSet(open_images(path), ["noise25", "blur"], patch=patch))


def check_pairs(root: Path, patch: int | None = None) -> Checked:
    return check(PairedFileSet(paired_folders(root / "degraded", root / "clean"), patch=patch))


def test_clean_images(tmp_path: Path) -> None:
    write_image(tmp_path / "some" / "a.png", 12, 30)
    write_image(tmp_path / "some" / "b.jpg", 20, 9, mode="L")
    found = check_clean(tmp_path / "some", patch=9)
    assert found[:5] == (2, 9, 30, 1, 0)


def test_pairs(tmp_path: Path) -> None:
    for part in ("degraded", "clean"):
        write_images(tmp_path / part, ["a.png", "b.png"])
    assert check_pairs(tmp_path, patch=5)[:5] == (4, 5, 6, 0, 0)


def test_all_unusable_images_are_named_together(tmp_path: Path) -> None:
    write_image(tmp_path / "small.png", 7, 30)
    write_image(tmp_path / "good.png", 30, 30)
    (tmp_path / "text.png").write_text("of no interest")
    (tmp_path / "cut.jpg").write_bytes(write_image(tmp_path / "whole.jpg", 30, 30).read_bytes()[:-100])
    with pytest.raises(ImageError) as caught:
        check_clean(tmp_path, patch=8)
    first, *lines = str(caught.value).splitlines()
    assert first == "3 of 5 images cannot be used; mend them, or take them out of the set:"
    assert [line.split()[0].rpartition("/")[2] for line in lines] == ["cut.jpg", "small.png", "text.png"]
    assert lines[1] == "  small.png has 7 x 30 pixels, too few for patches of 8"


def test_many_unusable_images_are_counted(tmp_path: Path) -> None:
    for number in range(13):
        (tmp_path / f"{number}.png").touch()
    with pytest.raises(ImageError, match=r"(?s)^13 of 13 images.*\n  \.\.\. and 3 more$") as caught:
        check_clean(tmp_path)
    assert len(str(caught.value).splitlines()) == 12


def test_pairs_of_different_sizes_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "degraded" / "a.png", 12, 17)
    write_image(tmp_path / "clean" / "a.jpg", 12, 16)
    message = r"a \(pairs\): the degraded and the clean image are no pair, they have 12 x 17 and 12 x 16 pixels"
    with pytest.raises(ImageError, match=message):
        check_pairs(tmp_path)


def test_an_orientation_stored_after_the_pixels_counts(tmp_path: Path) -> None:
    """It is found only by reading the whole file, which happens before a pair is refused for its sizes."""
    for part in ("degraded", "clean"):
        (tmp_path / part).mkdir()
    path = with_orientation(tmp_path / "degraded" / "a.png", ON_ITS_SIDE)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    end = data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[start + len(chunk) : end] + chunk + data[end:])
    Image.fromarray(np.zeros((10, 6, 3), np.uint8)).save(tmp_path / "clean" / "a.png")
    assert check_pairs(tmp_path)[:3] == (2, 6, 10)


def test_the_stamp_depends_on_contents_and_not_on_paths(tmp_path: Path) -> None:
    for seed, name in enumerate("abcdefgh"):
        write_image(tmp_path / "some" / f"{name}.png", 20, 20, seed=seed)
    before = check_clean(tmp_path / "some").stamp
    shutil.copytree(tmp_path / "some", tmp_path / "copied")
    (tmp_path / "linked").symlink_to("some")
    assert {check_clean(tmp_path / name).stamp for name in ("copied", "linked")} == {before}
    write_image(tmp_path / "copied" / "f.png", 20, 20, seed=99)
    # Noise cannot be compressed: files with different contents have the same size.
    assert len({path.stat().st_size for path in (tmp_path / "copied").iterdir()}) == 1
    assert check_clean(tmp_path / "copied").stamp != before


def test_the_stamp_of_a_zip(tmp_path: Path) -> None:
    stamps = set()
    for seed in (0, 0, 1):
        path = write_image(tmp_path / "a.png", 20, 20, seed=seed)
        with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
            archive.write(path, "a.png")
        stamps.add(check_clean(tmp_path / "some.zip").stamp)
    assert len(stamps) == 2


def test_the_stamp_of_arrays(tmp_path: Path) -> None:
    stamps = set()
    for value in (0, 0, 1):
        images = np.full((2, 9, 11, 3), value, np.uint8)
        np.savez(tmp_path / "some.npz", images=images, grey=np.zeros((9, 9, 1), np.uint8))
        found = check_clean(tmp_path / "some.npz")
        assert found[:5] == (3, 9, 11, 1, 0)
        stamps.add(found.stamp)
    assert len(stamps) == 2
