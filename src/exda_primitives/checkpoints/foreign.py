"""Checkpoints as other people's trainers write them, into patched and unpatched models."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from torch import nn

from ..errors import CheckpointError, some_of
from ..patching.wrappers import unwrap
from ..primitives import ExDAModule
from ..primitives.base import NEW_NAMES
from .contents import read_checkpoint
from .safe import check_fit, copy_into


def load_checkpoint(path: str | PathLike[str], into: nn.Module) -> None:
    """Loads an original checkpoint strictly: every weight of the host has to be there, and nothing else.

    In a patched model, the parameters that ExDA added stay as they are unless the file holds them.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``); weights bare or
            under ``params_ema``, ``params`` or ``state_dict``, their names bare or behind ``net.``, ``module.`` or
            ``_orig_mod.``, in any order. Of a Lightning checkpoint only what is behind ``net.`` is taken, if anything
            is.
        into: the model, on any device and in any dtype, which it keeps.

    Raises:
        CheckpointError: for a file that is missing, damaged, holds more than tensors and plain containers (no code is
            ever run), holds NaN, or does not fit the model, which is then as it was.
    """
    into, _ = unwrap(into)
    contents = read_checkpoint(Path(path))
    state = into.state_dict()
    tensors = dict(contents.tensors)
    for _, without_prefix in contents.unprefixed():
        if without_prefix.keys() & state.keys():
            tensors = dict(without_prefix)
            break
    new = _new_keys(into)
    _refuse_ours(tensors.keys() - state.keys(), contents.path)
    expected = {name: tensor for name, tensor in state.items() if name in tensors or name not in new}
    check_fit(tensors, expected, contents.path)
    copy_into(into, tensors)


def _refuse_ours(foreign: set[str], path: Path) -> None:
    if foreign and not any(set(NEW_NAMES).isdisjoint(name.split(".")) for name in foreign):
        raise CheckpointError(
            f"{path}: holds parameters of a patched model that this one does not have: {some_of(sorted(foreign))}. "
            f"exda.patch(model, ...) first, with the configuration that the file was trained with."
        )


def _new_keys(model: nn.Module) -> set[str]:
    return {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, ExDAModule)
        for key in module.new_parameters()
    }
