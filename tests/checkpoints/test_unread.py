"""Trainers' files: objects beside the weights are skipped without running code, weights found under any entry."""

from __future__ import annotations

import argparse
import pathlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import exda_primitives as exda
from exda_primitives.checkpoints.io import Unread, read_pickle
from exda_primitives.models import Restormer

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0}
BESIDE: dict[str, Any] = {
    "Namespace": argparse.Namespace(lr=1e-3, nested=argparse.Namespace(path=Path("a/b"))),
    "Path": [Path("/a/b"), pathlib.PurePosixPath("c"), pathlib.PureWindowsPath("d")],
    "numpy scalar": {"psnr": np.float64(31.5), "best": np.float32(2), "step": np.int64(7)},
    "numpy array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "numpy generator": np.random.RandomState(0).get_state(),
    "slice": [slice(1, 2), range(3), frozenset({1})],
}


@pytest.fixture(scope="module")
def model() -> Restormer:
    return Restormer(**SMALL)


@pytest.mark.parametrize("held", BESIDE.values(), ids=BESIDE)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_other_objects_are_skipped(held: Any, zipped: bool, model: Restormer, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"opt": held, "params": model.state_dict(), "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    made = exda.models.create(checkpoint=path)
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_other_objects_are_read_as_placeholders(tmp_path: Path) -> None:
    torch.save(BESIDE, tmp_path / "beside.pth")
    read = read_pickle(tmp_path / "beside.pth")
    assert isinstance(read["Namespace"], Unread)
    assert all(isinstance(each, Unread) for each in (*read["Path"], *read["slice"], *read["numpy scalar"].values()))
    assert isinstance(read["numpy array"], Unread)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code was run')",))


class InNamespace:
    """As in a crafted file: code as the argument of an allowed class."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (argparse.Namespace, (Evil(),))


@pytest.mark.parametrize(
    "held", [Evil(), InNamespace(), {"opt": argparse.Namespace(a=Evil())}], ids=["bare", "in", "deep"]
)
def test_code_is_not_run(held: Any, tmp_path: Path, model: Restormer) -> None:
    path = tmp_path / "model.pth"
    torch.save({"opt": held, "params": model.state_dict()}, path)
    with pytest.raises(exda.CheckpointError, match="could run code"):
        exda.models.create(checkpoint=path)


def test_classes_are_allowed_only_during_a_read(tmp_path: Path) -> None:
    torch.save({"opt": argparse.Namespace()}, tmp_path / "beside.pth")
    read_pickle(tmp_path / "beside.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "beside.pth", weights_only=True)


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


PREFIXES = ("net.", "module.", "model.", "generator.", "model.module.", "net._orig_mod.")
ENTRIES = ("params", "params_ema", "state_dict", "state_dict_ema", "model_state_dict", "model_state", "model", "net")


@pytest.mark.parametrize("patched", [False, True], ids=["host", "patched"])
@pytest.mark.parametrize(
    ("entry", "prefix"),
    [*((entry, "") for entry in ENTRIES), *(("params", prefix) for prefix in PREFIXES), ("generator", "generator.")],
)
def test_weights_are_found_under_any_entry_and_prefix(entry: str, prefix: str, patched: bool, tmp_path: Path) -> None:
    model = Restormer(**SMALL)
    if patched:
        exda.patch(model, exda.ExDAConfig(stride=4), include="latent", verify=False)
    path = tmp_path / "model.pth"
    torch.save({"epoch": 3, entry: with_prefix(prefix, dict(model.state_dict()))}, path)
    made, into = exda.models.create(checkpoint=path), Restormer(**SMALL)
    exda.load_checkpoint(path, into=into)
    for each in (made, into):
        assert each.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(tensor, each.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("held", [np.ones(3), None, [1]], ids=["array", "none", "list"])
def test_weights_that_are_no_tensors_are_refused_by_name(held: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"params": {"conv.weight": held}}, path)
    with pytest.raises(exda.CheckpointError, match=r"'conv\.weight' is a"):
        exda.models.create(checkpoint=path)
