"""Checkpoints as other people's trainers write them, into patched and unpatched models."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError
from ..patching.wrappers import unwrap
from ..primitives import ExDAModule
from .safe import check_fit, copy_into, read_pickle, read_safetensors

# Where trainers put the weights, the likelier first: BasicSR (with and without averaging), Lightning.
WRAPPINGS = ("params_ema", "params", "state_dict")
# What wrappers put before every name: Lightning modules, DataParallel and DDP, torch.compile.
PREFIXES = ("net.", "module.", "_orig_mod.")


def load_checkpoint(path: str | PathLike[str], into: nn.Module) -> None:
    """Loads an original checkpoint strictly: every weight of the host has to be there, and nothing else.

    In a patched model, the parameters that ExDA added stay as they are unless the file holds them.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``); weights bare or
            under ``params_ema``, ``params`` or ``state_dict``, their names bare or behind ``net.``, ``module.`` or
            ``_orig_mod.``, in any order.
        into: the model, on any device and in any dtype, which it keeps.

    Raises:
        CheckpointError: for a file that is missing, damaged, holds more than tensors and plain containers (no code is
            ever run), or does not fit the model, which is then as it was.
    """
    path = Path(path)
    into, _ = unwrap(into)
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Any] = read_safetensors(path)[0]
    else:
        tensors = _unwrapped(read_pickle(path), path)
    state = into.state_dict()
    tensors = _without_prefixes(tensors, state)
    new = _new_keys(into)
    expected = {name: tensor for name, tensor in state.items() if name in tensors or name not in new}
    check_fit(tensors, expected, path)
    copy_into(into, tensors)


def _unwrapped(held: Any, path: Path) -> dict[str, Tensor]:
    for key in WRAPPINGS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping) or not held:
        raise CheckpointError(f"{path}: holds {type(held).__name__}, expected a state dict.")
    strange = [name for name, value in held.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise CheckpointError(
            f"{path}: holds no state dict, neither bare nor under {', '.join(WRAPPINGS)}: {strange[0]!r} is a "
            f"{type(held[strange[0]]).__name__}."
        )
    return dict(held)


def _without_prefixes(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(tensors)
    while not tensors.keys() & state.keys():
        prefix = next((p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _new_keys(model: nn.Module) -> set[str]:
    return {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, ExDAModule)
        for key in module.new_parameters()
    }
