"""Sources of digits, and files that are refused."""

import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from exda_primitives import ConfigError, ExDAError
from exda_primitives.workbench.diagnostics.data import load_digits

BYTES = np.arange(6 * 8 * 8, dtype=np.uint16).reshape(6, 8, 8).astype(np.uint8)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_mnist(root: Path) -> None:
    """Writes MNIST as torchvision keeps it on disk: big-endian headers and bytes."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, *BYTES.shape) + BYTES.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(BYTES)) + bytes(len(BYTES)))


def test_a_file(elsewhere: Path) -> None:
    np.savez(elsewhere / "some.npz", images=BYTES, labels=np.zeros(6))
    digits = load_digits(Path("some.npz"))
    assert digits.images.shape == (6, 1, 8, 8)
    assert digits.images.dtype == torch.float32
    assert torch.equal(digits.images[:, 0], torch.from_numpy(BYTES) / 255)
    assert digits.source == "some.npz"
    np.savez(elsewhere / "floats.npz", images=BYTES.astype(np.float32) / 255)
    assert load_digits(Path("floats.npz")).sha256 == digits.sha256
    np.savez(elsewhere / "others.npz", images=BYTES[::-1])
    assert load_digits(Path("others.npz")).sha256 != digits.sha256


def test_the_mnist_of_torchvision(elsewhere: Path) -> None:
    save_mnist(elsewhere / "data")
    for digits in (load_digits(), load_digits(Path("data")), load_digits(Path("data"), download=True)):
        assert torch.equal(digits.images[:, 0], torch.from_numpy(BYTES) / 255)
        assert digits.source == "MNIST of torchvision, training part"


def test_the_digits_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = (BYTES % 17).astype(np.float64)
    datasets = ModuleType("sklearn.datasets")
    monkeypatch.setattr(datasets, "load_digits", lambda: SimpleNamespace(images=levels), raising=False)
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)
    digits = load_digits()
    assert digits.source == "8x8 digits of scikit-learn"
    assert torch.equal(digits.images[:, 0], torch.from_numpy(levels).float() / 16)


@pytest.mark.parametrize(
    ("module", "package"), [("sklearn.datasets", '.*"scikit-learn>=1.4"'), ("torchvision.datasets", '"torchvision"')]
)
def test_a_missing_package_is_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder = None if module == "sklearn.datasets" else elsewhere
    with pytest.raises(ExDAError, match=rf"{module} cannot be imported .*pip install {package}"):
        load_digits(folder)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": BYTES}, "cannot be read as digits"),
        ({"images": BYTES[0]}, r"shape \(8, 8\), uint8; expected \(n, H, W\)"),
        ({"images": BYTES[:0]}, r"shape \(0, 8, 8\)"),
        ({"images": BYTES.astype(np.int64)}, "int64; expected"),
        ({"images": BYTES.astype(np.float32)}, "values from 0 to 255; expected 0 to 1"),
        ({"images": np.full((2, 8, 8), np.nan)}, "values from nan to nan"),
        ({"images": np.array([None])}, "cannot be read as digits"),
    ],
)
def test_a_file_without_digits_is_refused(elsewhere: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(elsewhere / "bad.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        load_digits(Path("bad.npz"))


@pytest.mark.parametrize("content", [b"", b"no digits", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_broken_file_is_refused(elsewhere: Path, content: bytes) -> None:
    (elsewhere / "bad.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad.npz: cannot be read as digits"):
        load_digits(Path("bad.npz"))


def test_a_damaged_packed_file_is_refused_or_read_right(elsewhere: Path) -> None:
    np.savez_compressed("bad.npz", images=BYTES)
    whole = Path("bad.npz").read_bytes()
    for start in range(0, len(whole), 3):
        Path("bad.npz").write_bytes(whole[:start] + b"\xff\xff\xff" + whole[start + 3 :])
        # Damage in bytes that are not read goes unnoticed, and does no harm.
        with suppress(ConfigError):
            assert torch.equal(load_digits(Path("bad.npz")).images[:, 0], torch.from_numpy(BYTES) / 255)


def test_a_file_is_read_even_where_mnist_may_be_downloaded(elsewhere: Path) -> None:
    np.savez("some.npz", images=BYTES)
    assert load_digits(Path("some.npz"), download=True).source == "some.npz"


def test_places_without_digits_are_refused(elsewhere: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.npz: cannot be read as digits"):
        load_digits(Path("nowhere.npz"))
    with pytest.raises(ConfigError, match=r"no MNIST of torchvision there .*--download fetches it"):
        load_digits(elsewhere)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "digits.npz")
    with pytest.raises(ConfigError, match="no regular file"):
        load_digits(tmp_path / "digits.npz")
