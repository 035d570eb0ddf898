"""Gives damaged checkpoints to every reader of checkpoints."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.models.blocks import Attention

CONFIG = exda.ExDAConfig(tokens=2)


class Small(nn.Module):
    """The smallest host: one attention and one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention(4, 2, bias=False)
        self.tail = nn.Conv2d(4, 3, 1)


@cache
def network() -> exda.models.Restormer:
    """Returns a very small network of an architecture that the library identifies from its checkpoint."""
    return exda.models.Restormer(dim=4, num_blocks=[1, 0, 0, 0], num_refinement_blocks=0, heads=[1, 1, 1, 1])


def whole_files() -> dict[str, bytes]:
    """Returns intact files as trainers and this library write them: file name, with its ending -> contents."""
    state = dict(network().state_dict())
    lightning = {
        "state_dict": {f"net.{name}": tensor for name, tensor in state.items()},
        "epoch": 3,
        "loops": {"a": {}},
    }
    return {
        "bare.pth": _pickled(state),
        "legacy.pth": _pickled(state, zipped=False),
        "basicsr.pth": _pickled({"params": state, "params_ema": state}),
        "lightning.ckpt": _pickled(lightning),
        "bare.safetensors": save(state),
        "ours.safetensors": _ours(whole=False),
        "ours_whole.safetensors": _ours(whole=True),
    }


def attack(path: Path) -> bool:
    """Gives the file to every reader and returns whether at least one of them took it.

    Raises:
        AssertionError: if a reader changed a model and then refused the file.
        Exception: whatever a reader raises other than an ``ExDAError``.
    """
    taken = False
    for read in (_load, _load_checkpoint, exda.models.identify, lambda p: exda.models.create(checkpoint=p)):
        try:
            read(path)
        except exda.ExDAError:
            continue
        taken = True
    return taken


@contextmanager
def unchanged_if_refused(model: nn.Module) -> Iterator[None]:
    """Raises AssertionError if the block raises and leaves modules, keys or weights of the model changed."""
    modules = dict(model.named_modules())
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        yield
    except Exception:
        now: Mapping[str, Tensor] = model.state_dict()
        assert all(held is modules[name] for name, held in model.named_modules()), "modules were replaced"
        assert now.keys() == state.keys(), "keys were changed"
        assert all(torch.equal(now[name], tensor) for name, tensor in state.items()), "weights were changed"
        raise


def _load(path: Path) -> None:
    model = Small()
    with unchanged_if_refused(model):
        # The host's weights are random: the file was saved from another host.
        exda.load(model, path, any_host=True)


def _load_checkpoint(path: Path) -> None:
    # One cached network for all inputs: its current weights do not matter, only that a refused file leaves them alone.
    model = network()
    with unchanged_if_refused(model):
        exda.load_checkpoint(path, into=model)


def _pickled(held: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(held, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _ours(*, whole: bool) -> bytes:
    model = Small()
    exda.patch(model, CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exda.safetensors"
        exda.save(model, path, whole=whole)
        return path.read_bytes()
