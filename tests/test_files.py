"""``atomic_write`` replaces files whole or not at all, with the usual permissions."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from exda_primitives.files import atomic_write


def test_file_is_replaced_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_the_old_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")

    def write_half(partial: Path) -> None:
        partial.write_text("half")
        raise error

    with pytest.raises(error), atomic_write(path) as partial:
        write_half(partial)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "missing" / "result"):
        pass


def test_safetensors_files_get_the_usual_permissions(tmp_path: Path) -> None:
    path, other = tmp_path / "weights.safetensors", tmp_path / "other"
    other.touch()
    with atomic_write(path) as partial:
        save_file({"weight": torch.ones(2)}, partial)
    assert path.stat().st_mode == other.stat().st_mode
