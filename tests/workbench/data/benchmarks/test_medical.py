"""AMIR's medical images: folders, NIfTI and pickled arrays."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from exda_primitives.errors import DataError, ExDAError, ImageError
from exda_primitives.workbench.data import PairedFileSet
from exda_primitives.workbench.data.benchmarks import medical_files
from exda_primitives.workbench.data.benchmarks.medical import RANGES, read_slice

SIDES = [(modality, side) for modality in RANGES for side in ("LQ", "HQ")]


def nifti(path: Path, values: np.ndarray) -> Path:
    """Writes values (H, W) as SimpleITK does, with x as the first axis of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.T, np.eye(4)), path)
    return path


def pickled(path: Path, value: object, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def ramp(modality: str, height: int = 5, width: int = 7) -> np.ndarray:
    low, high = RANGES[modality]
    return np.linspace(low, high, height * width, dtype=np.float32).reshape(height, width)


def test_slices_in_nifti(tmp_path: Path) -> None:
    for modality, side in SIDES:
        nifti(tmp_path / modality / "test" / side / "a.nii", ramp(modality) * (1 if side == "HQ" else 0.5))
    pairs = PairedFileSet(medical_files(tmp_path))
    assert [(pair.degradation, pair.name) for pair in pairs] == [("PET", "a"), ("CT", "a"), ("MRI", "a")]
    for pair in pairs:
        assert pair.clean.dtype is torch.float32
        torch.testing.assert_close(pair.clean, torch.linspace(0, 1, 35).view(1, 5, 7))
    torch.testing.assert_close(pairs[2].degraded, torch.linspace(0, 0.5, 35).view(1, 5, 7))


@pytest.mark.parametrize("modality", RANGES)
def test_values_beyond_the_range_are_clipped(tmp_path: Path, modality: str) -> None:
    low, high = RANGES[modality]
    values = np.array([[low - 7, low], [high, high + 7]], np.float32)
    assert read_slice(nifti(tmp_path / "a.nii", values), modality).tolist() == [[[0, 0], [1, 1]]]


def test_integers_with_a_scale(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(6, dtype=np.int16).reshape(3, 2), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "a.nii")
    expected = (torch.tensor([[0.0, 2, 4], [1, 3, 5]]) * 2) / 4095
    torch.testing.assert_close(read_slice(tmp_path / "a.nii", "CT")[0], expected)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", ["tensor", "float array", "int array"])
def test_training_pickles(tmp_path: Path, protocol: int, kind: str) -> None:
    values = ramp("MRI").round()
    value = {"tensor": torch.from_numpy(values)[None], "float array": values, "int array": values.astype(np.int16)}
    for modality, side in SIDES:
        pickled(tmp_path / modality / "train" / side / "a.bin", value[kind], protocol)
    pairs = PairedFileSet(medical_files(tmp_path, "train"), patch=4)
    assert len(pairs) == 3
    assert pairs[2].clean.shape == (1, 4, 4)
    torch.testing.assert_close(
        read_slice(tmp_path / "MRI/train/LQ/a.bin", "MRI"), torch.from_numpy(values)[None] / 4095
    )


def test_pickles_run_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    inner = np.empty(1, dtype=object)
    inner[0] = Bomb()
    for value in (Bomb(), [Bomb()], inner):
        with pytest.raises(ImageError, match=r"a\.bin is no pickled array .* could run code"):
            read_slice(pickled(tmp_path / "a.bin", value), "CT")
    assert not (tmp_path / "exploded").exists()


def test_a_bomb_inside_the_bytes_of_a_tensor(tmp_path: Path) -> None:
    # The bytes of a tensor are a file of PyTorch's own inside the pickle.
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    class Storage:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def __reduce__(self) -> tuple[object, tuple[bytes]]:
            return torch.storage._load_from_bytes, (self.data,)

    torch.save(Bomb(), tmp_path / "inner.pt")
    path = pickled(tmp_path / "a.bin", Storage((tmp_path / "inner.pt").read_bytes()))
    with pytest.raises(ImageError, match=r"a\.bin is no pickled array"):
        read_slice(path, "CT")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("value", ["words", {"a": 1}, np.array(["x", "y"]), 3])
def test_pickles_of_something_else_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ImageError, match=r"a\.bin"):
        read_slice(pickled(tmp_path / "a.bin", value), "CT")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = pickled(tmp_path / "a.bin", ramp("CT"))
    (tmp_path / "b.bin").write_bytes(whole.read_bytes()[:40])
    image = nifti(tmp_path / "a.nii", ramp("CT"))
    (tmp_path / "b.nii").write_bytes(image.read_bytes()[:-20])
    (tmp_path / "c.nii").write_bytes(b"nothing")
    (tmp_path / "d.nii").write_bytes(b"")
    for name in ("b.bin", "b.nii", "c.nii", "d.nii", "absent.nii", "absent.bin"):
        with pytest.raises(ImageError, match=name):
            read_slice(tmp_path / name, "CT")


@pytest.mark.parametrize(
    ("place", "value"), [(70, b"\0\x10"), (70, b"\0\0"), (108, b"\0\0\0\x43"), (42, b"\0\x40\0\x40")]
)
def test_damaged_headers_are_refused(tmp_path: Path, place: int, value: bytes) -> None:
    """Types that do not exist, data that begin before the end of the header, and more pixels than there are."""
    path = nifti(tmp_path / "a.nii", ramp("CT"))
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + value + whole[place + len(value) :])
    with pytest.raises(ImageError, match=r"a\.nii is no NIfTI file that can be read"):
        read_slice(path, "CT")


def test_volumes_and_nan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"has shape \(2, 5, 7\); one slice"):
        read_slice(nifti(tmp_path / "a.nii", np.zeros((2, 5, 7), np.float32)), "CT")
    with pytest.raises(ImageError, match="NaN or infinity"):
        read_slice(nifti(tmp_path / "a.nii", np.full((2, 2), np.nan, np.float32)), "CT")


@pytest.mark.parametrize(("split", "suffix"), [("train", ".bin"), ("validation", ".nii"), ("test", ".nii")])
def test_files_without_a_partner_are_named(tmp_path: Path, split: str, suffix: str) -> None:
    for modality, side in SIDES:
        folder = tmp_path / modality / split / side
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            (folder / f"{name}{suffix}").touch()
    assert len(medical_files(tmp_path, split)) == 6
    (tmp_path / "CT" / split / "HQ" / f"b{suffix}").unlink()
    (tmp_path / "MRI" / split / "LQ" / f"a{suffix}").unlink()
    (tmp_path / "PET" / split / "LQ" / "c.png").touch()
    with pytest.raises(DataError) as raised:
        medical_files(tmp_path, split)
    assert str(raised.value).splitlines()[1:] == [
        f"  CT/{split}/HQ/b.*: missing, the clean image of CT/{split}/LQ/b{suffix}",
        f"  PET/{split}/LQ/c.png: not expected, neither an image nor a part of the set",
        f"  MRI/{split}/HQ/a{suffix}: no degraded image of it in MRI/{split}/LQ",
    ]


def test_missing_nibabel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nifti(tmp_path / "a.nii", ramp("CT"))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ExDAError, match=r'pip install "nibabel>=5"'):
        read_slice(path, "CT")
