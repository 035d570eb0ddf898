"""Loads checkpoints of other trainers into patched and unpatched models."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from ..primitives import ExDAConfig
from ..primitives.base import DESCRIPTION, is_new
from .contents import Patterns, read_checkpoint
from .fit import check_fit, copy_into
from .network import attentions_of, inside, parts_of, state_of
from .patched_as import patched_as
from .split import SplitState, split_state_dict


def load_checkpoint(
    path: str | PathLike[str],
    into: nn.Module,
    *,
    param_key: str | None = None,
    config: ExDAConfig | None = None,
    ignore: Patterns = None,
) -> None:
    """Loads a trainer's checkpoint strictly: every weight of the host has to be there, and nothing else.

    The model's own ``load_state_dict`` loads it: hooks run, extra states are set, and modules convert what their older
    versions have written.

    If an original checkpoint is loaded into a patched model, the parameters that ExDA added keep their values. The
    checkpoint of a patched model holds the configuration of each attention; attentions of ``into`` that are not patched
    yet are patched accordingly.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote (``.pth``, ``.pt``, ``.ckpt``). The weights may be
            bare or under ``params_ema``, ``params``, ``state_dict`` and the like; their names may have the prefixes
            ``net.``, ``module.``, ``_orig_mod.``, ``model.`` and ``generator.``, in any order. If names in a Lightning
            checkpoint begin with ``net.``, only these are loaded.
        into: the model; keeps its devices and dtypes. It may be wrapped as for ``exda_primitives.load``.
        param_key: the entry that holds the weights, for a file with several.
        config: the configuration of a patched model's attentions, for a checkpoint that does not hold it (written
            before state dicts held it).
        ignore: pattern or patterns of names in the file, or of leading parts of names, to leave out: leftovers that the
            network does not use.

    Raises:
        CheckpointError: if the file is missing or damaged; if it holds more than tensors and plain containers (no code
            is ever run) or NaN; if it does not say how its attentions were patched; if it does not fit the model; if
            the model's tensors cannot be written to, or its hooks raise an error; and if its state dict holds
            anything but tensors.
            On this and any other error the model is unchanged.

    """
    model = inside(into, "load_checkpoint")
    contents = read_checkpoint(Path(path), param_key).without(ignore)
    names = state_of(model).keys()
    # Prefixes are removed until names of the model appear.
    prefix, tensors = next(
        ((prefix, held) for prefix, held in contents.unprefixed() if held.keys() & names), ("", contents.tensors)
    )
    held = _split_for(model, tensors, contents.path, config)
    with patched_as(model, held.attentions, contents.path):
        own = parts_of(model, state_of(model, whole=True))
        # ExDA attentions of which the file holds nothing keep the parameters that ExDA added.
        undescribed = {name for name in attentions_of(model, aliases=True) if name not in held.attentions}
        expected = {
            name: tensor
            for name, tensor in own.weights.items()
            if not any(_added_to(name, each) for each in undescribed)
        }
        check_fit(held.weights, expected, contents.path)
        copy_into(model, held.weights, contents.path, contents.versions_below(prefix))


def _split_for(model: nn.Module, tensors: Mapping[str, Tensor], path: Path, config: ExDAConfig | None) -> SplitState:
    """Divides the file's tensors as ``split_state_dict`` does, with the model's help.

    A model may hold a ``NonlinearValue`` or a ``GST`` outside of any ExDA attention. Tensors with such names count as
    the host's, not as those of an attention without a configuration.
    """
    there = attentions_of(model, aliases=True)
    names = state_of(model).keys()
    alone = {
        name: tensor
        for name, tensor in tensors.items()
        if name in names and not any(_added_to(name, each) for each in there)
    }
    others = {name: tensor for name, tensor in tensors.items() if name not in alone}
    held = split_state_dict(others, path, config)
    return SplitState({**alone, **held.host}, held.added, held.attentions)


def _added_to(name: str, attention: str) -> bool:
    """Whether the entry ``name`` of a state dict is one that ExDA added to ``attention``."""
    prefix = f"{attention}." if attention else ""
    inner = name.removeprefix(prefix)
    return name.startswith(prefix) and (is_new(inner) or inner == DESCRIPTION)
