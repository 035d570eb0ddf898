"""exda.load_checkpoint reads the files that third-party trainers write."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.patching.unchanged import unchanged
from torch import Tensor

import exda_primitives as exda

State = dict[str, Tensor]


def restormer(seed: int) -> exda.models.Restormer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()


def with_prefix(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params-and-average": lambda state: {"params": {}, "params_ema": state},
    "lightning": lambda state: {"state_dict": with_prefix("net.", state), "epoch": 3, "loops": {"fit_loop": {}}},
    "ddp": lambda state: {"params": with_prefix("module.", state)},
    "compiled-lightning": lambda state: {"state_dict": with_prefix("net._orig_mod.", state)},
}


@pytest.fixture
def state() -> State:
    return dict(restormer(1).state_dict())


@pytest.mark.parametrize("patched", [False, True], ids=["host", "patched"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_load_from_every_wrapping(wrapping: str, patched: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save(WRAPPINGS[wrapping](state), path)
    model = restormer(0)
    if patched:
        exda.patch(model)
    exda.load_checkpoint(path, into=model)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    image = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(model(image), restormer(1)(image), rtol=0, atol=1e-5)


def test_safetensors_file_loads(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(with_prefix("module.", state), path)
    model = restormer(0)
    exda.load_checkpoint(path, into=model)
    assert torch.equal(model.state_dict()["output.weight"], state["output.weight"])


def test_patched_state_dict_loads_into_a_patched_model(tmp_path: Path) -> None:
    model, path = restormer(1), tmp_path / "patched.pth"
    exda.patch(model, exda.ExDAConfig(init="paper"))
    torch.save(model.state_dict(), path)
    other = restormer(0)
    exda.patch(other)
    exda.load_checkpoint(path, into=other)
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(other(image), model(image))


def test_loads_into_a_model_on_meta(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path)
    with torch.device("meta"):
        model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    exda.load_checkpoint(path, into=model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("output.weight"), r"Missing in the file: output\.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "Not in the model: extra"),
        (lambda state: state.update({"output.weight": torch.zeros(3)}), r"output.weight has shape \(3,\)"),
        (lambda state: state.update({"output.weight": state["output.weight"].int()}), "torch.int32"),
    ],
    ids=["missing", "unexpected", "shape", "dtype"],
)
def test_state_dict_that_does_not_fit_is_refused(
    change: Callable[[State], Any], message: str, state: State, tmp_path: Path
) -> None:
    change(state)
    path = tmp_path / "model.pth"
    torch.save(state, path)
    model = restormer(0)
    with unchanged(model), pytest.raises(exda.CheckpointError, match=message):
        exda.load_checkpoint(path, into=model)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil-was-here"),))


@pytest.mark.parametrize("held", [Evil(), {"params": {"weight": Evil()}}], ids=["bare", "inside"])
def test_code_is_not_run(held: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for writer, name in ((torch.save, "torch.pth"), (lambda o, p: p.write_bytes(pickle.dumps(o)), "plain.pkl")):
        writer(held, tmp_path / name)
        model = restormer(0)
        with unchanged(model), pytest.raises(exda.CheckpointError, match="could run code"):
            exda.load_checkpoint(tmp_path / name, into=model)
    assert not Path("evil-was-here").exists()


@pytest.mark.parametrize("held", [[1, 2], {"weights": 3}, {}, {1: torch.zeros(1)}, torch.zeros(2)], ids=str)
def test_file_without_a_state_dict_is_refused(held: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(held, path)
    model = restormer(0)
    with unchanged(model), pytest.raises(exda.CheckpointError, match="state dict"):
        exda.load_checkpoint(path, into=model)


@pytest.mark.parametrize("kept", [0, 10, 1000, -100])
def test_truncated_file_is_refused(kept: int, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    model = restormer(0)
    with unchanged(model), pytest.raises(exda.CheckpointError):
        exda.load_checkpoint(path, into=model)
