"""Loading does what a model's own ``load_state_dict`` does: hooks run, extra states are set, old versions converted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.patching.unchanged import unchanged
from tests.registries import forget_afterwards
from torch import Tensor, nn
from torch.nn import functional as F

import exda_primitives as exda
from exda_primitives import Architecture
from exda_primitives.checkpoints.contents import read_checkpoint
from exda_primitives.models import Restormer, create
from exda_primitives.workbench.training.run import write_network

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 0, 0, 0], "num_refinement_blocks": 0}


class Scaled(nn.Conv2d):
    """Has a scale, which only its extra state holds."""

    scale = 1.0

    def get_extra_state(self) -> Any:
        return torch.tensor(self.scale)

    def set_extra_state(self, state: Any) -> None:
        self.scale = float(state)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x)


class ScaledByText(Scaled):
    """Has an extra state whose length depends on its value."""

    def get_extra_state(self) -> Any:
        return torch.tensor(list(str(self.scale).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        self.scale = float(bytes(state.tolist()))


class ScaledByDictionary(Scaled):
    def get_extra_state(self) -> Any:
        return {"scale": self.scale}

    def set_extra_state(self, state: Any) -> None:
        self.scale = state["scale"]


class Unchanging(Scaled):
    """Has an extra state that says nothing."""

    def get_extra_state(self) -> Any:
        return None

    def set_extra_state(self, state: Any) -> None:
        assert state is None


class Cached(nn.Conv2d):
    """Computes its kernel when it is loaded."""

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.kernel = self.weight.detach() * 2
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def refresh(self) -> None:
        self.kernel = self.weight.detach() * 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.bias)


class CachedInPlace(Cached):
    """Writes its kernel into a buffer that the state dict does not hold."""

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        kernel = self.__dict__.pop("kernel")
        self.register_buffer("kernel", kernel, persistent=False)

    def refresh(self) -> None:
        self.kernel.copy_(self.weight.detach() * 2)


class Renaming(nn.Conv2d):
    """Has the names of an older layer in its state dict, and half of its weight."""

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.register_state_dict_post_hook(self._renamed)
        self.register_load_state_dict_pre_hook(self._named)

    @staticmethod
    def _renamed(_module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
        state[f"{prefix}half"] = state.pop(f"{prefix}weight") / 2

    @staticmethod
    def _named(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        state[f"{prefix}weight"] = state.pop(f"{prefix}half") * 2


class Versioned(nn.Conv2d):
    """Version 1 held half of the weight."""

    _version = 2

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *more: Any) -> None:
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"] * 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)


class Net(nn.Module):
    def __init__(self, kind: Callable[[int, int, int], Any] = Scaled, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.head, self.body = kind(3, 3, 1), Restormer(**SMALL)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.head(x))
        return out


class Copying(Net):
    """Its state dict shares no memory with it."""

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return {name: each.clone() for name, each in super().state_dict(*arguments, **options).items()}


class Overriding(Net):
    """Computes something else after it was loaded by its own method."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        found = super().load_state_dict(state_dict, strict, assign)
        self.head.kernel = self.head.weight.detach() * 2
        return found


class Reading(Net):
    """Looks for every entry when it is loaded."""

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> None:
        for name, each in self.state_dict().items():
            each.copy_(state_dict[name])


KINDS: dict[str, Callable[..., Any]] = {
    "extra state": lambda seed=0: Net(Scaled, seed),
    "extra state of changing size": lambda seed=0: Net(ScaledByText, seed),
    "no extra state": lambda seed=0: Net(Unchanging, seed),
    "hook": lambda seed=0: Net(Cached, seed),
    "hook in place": lambda seed=0: Net(CachedInPlace, seed),
    "renaming": lambda seed=0: Net(Renaming, seed),
    "converting": lambda seed=0: Net(Versioned, seed),
    "copying": lambda seed=0: Copying(nn.Conv2d, seed),
    "own method that reads all": lambda seed=0: Reading(nn.Conv2d, seed),
    "own method": lambda seed=0: Overriding(Cached, seed),
}
kinds = pytest.mark.parametrize("made", KINDS.values(), ids=KINDS)


@torch.no_grad()
def restored(model: Any) -> Tensor:
    out: Tensor = model(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return out


@torch.no_grad()
def trained(made: Callable[..., Any]) -> Any:
    """A network that is patched, with a scale of 3.25 where it has one."""
    model = made(seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exda.patch(model, verify=False)
    for parameter in exda.new_parameters(model):
        parameter.add_(0.1)
    if isinstance(model.head, Scaled) and not isinstance(model.head, Unchanging):
        model.head.scale = 3.25
    model.load_state_dict(model.state_dict())
    return model


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers a network for the length of a test."""
    forget_afterwards(monkeypatch)
    return lambda made: exda.register_adapter(Architecture("of-a-test", made, lambda shapes: {}))


@kinds
@pytest.mark.parametrize("patched", [False, True], ids=["bare", "patched"])
def test_load_and_load_checkpoint(made: Callable[..., Any], patched: bool, tmp_path: Path) -> None:
    model = trained(made)
    exda.save(model, tmp_path / "m.safetensors", whole=True)
    state = {name: each for name, each in model.state_dict().items() if each is not None}
    torch.save({"params": state}, tmp_path / "m.pth")
    into = [made() for _ in range(2)]
    for each in into if patched else ():
        exda.patch(each, verify=False)
    exda.load(into[0], tmp_path / "m.safetensors")
    exda.load_checkpoint(tmp_path / "m.pth", into=into[1])
    for each in into:
        assert torch.equal(restored(each), restored(model))


@kinds
def test_original_into_a_patched_model(made: Callable[..., Any], tmp_path: Path) -> None:
    model, host = trained(made), made(seed=2)
    torch.save({name: each for name, each in host.state_dict().items() if each is not None}, tmp_path / "host.pth")
    by_torch = trained(made)
    state = by_torch.state_dict()
    state.update(host.state_dict())
    by_torch.load_state_dict(state)
    exda.load_checkpoint(tmp_path / "host.pth", into=model)
    assert torch.equal(restored(model), restored(by_torch))


@kinds
def test_create_and_from_pretrained(made: Callable[..., Any], registered: Callable[..., None], tmp_path: Path) -> None:
    registered(made)
    model = trained(made)
    exda.save(model, tmp_path / "m.safetensors", whole=True)
    assert torch.equal(restored(create("of-a-test", tmp_path / "m.safetensors")), restored(model))
    exda.hub.save_pretrained(model, tmp_path / "folder", license="mit")
    assert torch.equal(restored(exda.hub.from_pretrained(tmp_path / "folder")), restored(model))


@kinds
def test_patch_into_its_host(made: Callable[..., Any], tmp_path: Path) -> None:
    model, host = trained(made), trained(made)
    exda.unpatch(host)
    exda.save(model, tmp_path / "patch.safetensors")
    exda.load(host, tmp_path / "patch.safetensors")
    assert torch.equal(restored(host), restored(model))


def test_patch_into_a_host_that_cannot_be_written_to(tmp_path: Path) -> None:
    model, host = trained(Net), Net(seed=1)
    for each in (model, host):
        each.head.weight.data = each.head.weight.data[:1].expand(3, 3, 1, 1)
    exda.save(model, tmp_path / "patch.safetensors")
    exda.load(host, tmp_path / "patch.safetensors", any_host=True)
    host.head.scale = 3.25
    assert torch.equal(restored(host), restored(model))


def test_patch_of_a_shared_attention_whose_state_dict_is_a_copy(tmp_path: Path) -> None:
    def made(seed: int = 0) -> Any:
        model = Copying(nn.Conv2d, seed)
        model.again = model.body
        return model

    model, host = trained(made), made(seed=1)
    exda.save(model, tmp_path / "patch.safetensors")
    exda.load(host, tmp_path / "patch.safetensors")
    assert torch.equal(restored(host), restored(model))


class RefusedError(Exception):
    """Raised by these tests alone."""


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "new"])
@pytest.mark.parametrize("kind", [Scaled, Cached, CachedInPlace])
def test_error_in_a_hook_changes_nothing(kind: type[Any], whole: bool, device: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    exda.save(trained(lambda seed=0: Net(kind, seed)), path, whole=whole)
    model = Net(kind)
    if device == "meta":
        model.body.to("meta")

    def refuse(*_: object) -> None:
        raise RefusedError("not today")

    model.register_load_state_dict_post_hook(refuse)
    before = restored(model) if device == "cpu" else None
    with (
        unchanged(model, random_numbers=False),
        pytest.raises(exda.CheckpointError, match=r"not today.*nothing was loaded"),
    ):
        exda.load(model, path, any_host=True)
    assert not exda.is_patched(model)
    assert before is None or torch.equal(restored(model), before)


def test_error_takes_back_what_an_extra_state_changed_in_place(tmp_path: Path) -> None:
    class Listing(nn.Conv2d):
        def __init__(self, *sizes: Any) -> None:
            super().__init__(*sizes)
            self.scales = [1.0]

        def get_extra_state(self) -> Tensor:
            return torch.tensor(self.scales)

        def set_extra_state(self, state: Tensor) -> None:
            self.scales[:] = state.tolist()
            if self.scales == [2.0, 3.0]:
                raise RefusedError("these two")

    model = Net(Listing)
    state = {**model.state_dict(), "head._extra_state": torch.tensor([2.0, 3.0])}
    torch.save(state, tmp_path / "m.pth")
    with unchanged(model), pytest.raises(exda.CheckpointError, match="RefusedError: these two"):
        exda.load_checkpoint(tmp_path / "m.pth", into=model)
    assert model.head.scales == [1.0]


def test_meta_tensors_under_other_names_are_refused(tmp_path: Path) -> None:
    torch.save(Net(Renaming).state_dict(), tmp_path / "m.pth")
    with torch.device("meta"):
        model = Net(Renaming)
    with unchanged(model), pytest.raises(exda.CheckpointError, match=r"meta device.*head\.half"):
        exda.load_checkpoint(tmp_path / "m.pth", into=model)


def test_what_is_no_tensor_is_refused(registered: Callable[..., None], tmp_path: Path) -> None:
    def made(seed: int = 0) -> Any:
        return Net(ScaledByDictionary, seed)

    model, path = trained(made), tmp_path / "m.safetensors"
    why = r"head\._extra_state: is a dict.*only tensors"
    registered(made)
    with pytest.raises(exda.CheckpointError, match=why):
        exda.save(model, path, whole=True)
    for network in (model, made()):
        with pytest.raises(exda.CheckpointError, match=why):
            exda.hub.save_pretrained(network, tmp_path / "folder", license="mit")
        with pytest.raises(exda.CheckpointError, match=why):
            write_network(network, path)
    assert not any(tmp_path.iterdir())
    # What ExDA added is not affected.
    exda.save(model, path)
    exda.load(host := made(seed=1), path)
    assert exda.is_patched(host)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    with unchanged(host), pytest.raises(exda.CheckpointError, match=r"head\._extra_state is a dict"):
        exda.load_checkpoint(tmp_path / "m.pth", into=host)


def test_file_that_lost_what_is_no_tensor_is_refused(registered: Callable[..., None], tmp_path: Path) -> None:
    def made(seed: int = 0) -> Any:
        return Net(ScaledByDictionary, seed)

    exda.save(trained(lambda seed=0: Net(nn.Conv2d, seed)), tmp_path / "m.safetensors", whole=True)
    registered(made)
    model, why = made(), r"head\._extra_state: is a dict"
    with unchanged(model, random_numbers=False), pytest.raises(exda.CheckpointError, match=why):
        exda.load(model, tmp_path / "m.safetensors")
    with unchanged(model, random_numbers=False), pytest.raises(exda.CheckpointError, match=why):
        exda.load_checkpoint(tmp_path / "m.safetensors", into=model)
    with pytest.raises(exda.CheckpointError, match=why):
        create("of-a-test", tmp_path / "m.safetensors")


def old(state: Any, prefix: str = "") -> OrderedDict[str, Tensor]:
    """The state dict as version 1 of the head wrote it."""
    found = OrderedDict((prefix + name, each) for name, each in state.items())
    found[f"{prefix}head.weight"] = found[f"{prefix}head.weight"] / 2
    versions = {f"{prefix}{name}".rstrip("."): {"version": 1} for name in ("", "head", "body")}
    found._metadata = versions  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("prefix", ["", "net.", "module."])
def test_older_version_of_a_module_is_converted(prefix: str, registered: Callable[..., None], tmp_path: Path) -> None:
    def made(seed: int = 0) -> Any:
        return Net(Versioned, seed)

    registered(made)
    model, path = trained(made), tmp_path / "m.pth"
    torch.save({"state_dict": old(model.state_dict(), prefix)}, path)
    exda.load_checkpoint(path, into=(into := made()))
    for each in (into, create("of-a-test", path)):
        assert torch.equal(restored(each), restored(model))


@pytest.mark.parametrize("name", ["m.pth", "bare.pth", "m.safetensors", "bare.safetensors"])
def test_present_version_of_a_module_is_not_converted(name: str, tmp_path: Path) -> None:
    def made(seed: int = 0) -> Any:
        return Net(Versioned, seed)

    model, path = trained(made), tmp_path / name
    if name == "m.safetensors":
        exda.save(model, path, whole=True)
        exda.load(into := made(), path)
        assert torch.equal(restored(into), restored(model))
    elif name == "bare.safetensors":
        save_file(dict(model.state_dict()), path)
    else:
        # A dictionary that was made anew has lost the versions.
        torch.save(model.state_dict() if name == "m.pth" else dict(model.state_dict()), path)
    exda.load_checkpoint(path, into=(into := made()))
    assert torch.equal(restored(into), restored(model))


def test_order_to_assign_in_a_file_is_not_followed(tmp_path: Path) -> None:
    state = Net().double().state_dict()
    other = Net()
    # PyTorch writes the order into the state dict that it loads.
    Net().double().load_state_dict(state, assign=True)
    assert state._metadata["head"]["assign_to_params_buffers"]  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "m.pth")
    weight = other.head.weight
    exda.load_checkpoint(tmp_path / "m.pth", into=other)
    assert other.head.weight is weight
    assert weight.dtype is torch.float32
    assert read_checkpoint(tmp_path / "m.pth").versions is not None


def test_saved_extra_state_is_in_the_file(tmp_path: Path) -> None:
    exda.save(trained(Net), tmp_path / "m.safetensors", whole=True)
    assert load_file(tmp_path / "m.safetensors")["head._extra_state"] == 3.25
