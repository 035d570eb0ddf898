"""Checkpoints as other people's trainers write them, into patched and unpatched models."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from ..primitives import ExDAConfig
from ..primitives.base import DESCRIPTION, is_new
from .contents import Patterns, read_checkpoint
from .described import Described, described
from .filling import patched_as
from .fit import check_fit, copy_into
from .network import attentions_of, inside, parts_of, state_of


def load_checkpoint(
    path: str | PathLike[str],
    into: nn.Module,
    *,
    param_key: str | None = None,
    config: ExDAConfig | None = None,
    ignore: Patterns = None,
) -> None:
    """Loads a trainer's checkpoint strictly: every weight of the host has to be there, and nothing else.

    Of an original checkpoint in a patched model, the parameters that ExDA added stay as they are. A patched model's
    checkpoint says with which configuration each attention was patched: where the model is not patched yet, it is
    patched so.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``); weights bare or
            under ``params_ema``, ``params``, ``state_dict`` and the like, their names bare or behind ``net.``,
            ``module.``, ``_orig_mod.``, ``model.`` or ``generator.``, in any order. Of a Lightning checkpoint only what
            is behind ``net.`` is taken, if anything is.
        into: the model, on any device and in any dtype, which it keeps; wrapped as for ``exda_primitives.load``.
        param_key: the entry that holds the weights, for a file with several.
        config: with which a patched model was trained, for a checkpoint that does not say it (from before attentions
            said so in their state dict).
        ignore: pattern or patterns of names in the file, or of leading parts of them, that are left out: leftovers that
            the network does not use.

    Raises:
        CheckpointError: for a file that is missing, damaged, holds more than tensors and plain containers (no code is
            ever run), holds NaN, does not say how its attentions were patched, or does not fit the model. On this and
            any other error the model is as it was.

    """
    model = inside(into, "load_checkpoint")
    contents = read_checkpoint(Path(path), param_key).without(ignore)
    names = state_of(model).keys()
    tensors = next((held for _, held in contents.unprefixed() if held.keys() & names), contents.tensors)
    held = _told_apart(model, tensors, contents.path, config)
    with patched_as(model, held.attentions, contents.path):
        own = parts_of(model)
        silent = {name for name in attentions_of(model, aliases=True) if name not in held.attentions}
        expected = {
            name: tensor for name, tensor in own.weights.items() if not any(_added_to(name, each) for each in silent)
        }
        check_fit(held.weights, expected, contents.path)
        copy_into(model, held.weights, contents.path)


def _told_apart(model: nn.Module, tensors: Mapping[str, Tensor], path: Path, config: ExDAConfig | None) -> Described:
    """A network of one's own may hold a ``NonlinearValue`` or a ``GST`` outside of any attention of ours."""
    there = attentions_of(model, aliases=True)
    names = state_of(model).keys()
    alone = {
        name: tensor
        for name, tensor in tensors.items()
        if name in names and not any(_added_to(name, each) for each in there)
    }
    others = {name: tensor for name, tensor in tensors.items() if name not in alone}
    held = described(others, path, config)
    return Described({**alone, **held.host}, held.added, held.attentions)


def _added_to(name: str, attention: str) -> bool:
    """Whether an entry of that name is one that ExDA added to the attention."""
    prefix = f"{attention}." if attention else ""
    inner = name.removeprefix(prefix)
    return name.startswith(prefix) and (is_new(inner) or inner == DESCRIPTION)
