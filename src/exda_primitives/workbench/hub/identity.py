"""Finds out which network a model is, and with which constructor arguments it can be built again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...checkpoints.contents import Contents
from ...checkpoints.network import parts_of, state_of
from ...checkpoints.split import is_extra_state
from ...errors import ConfigError
from ...models.architecture import Architecture
from ...models.catalog import Identity, identity_of
from ...primitives import ExDAModule

_PLAIN = (bool, int, float, str, tuple, list, type(None))


def identified(model: nn.Module) -> Identity:
    """Identifies the network by the names and shapes in the model's state dict.

    Raises:
        CheckpointError: for an unknown network, or weights that are not all plain and finite.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state_of(model).items()}
    return identity_of(Contents.checked(Path(f"this {type(model).__name__}"), tensors, None, {}))


def arguments_of(model: nn.Module, identity: Identity, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the constructor arguments of a network: those its state dict shows, and ``given`` for the others.

    Args:
        model: the network.
        identity: what its state dict shows.
        given: arguments that win over those of ``identity``.

    Raises:
        ConfigError: for arguments that build another network.
    """
    arguments = {**identity.arguments, **(given or {})}
    try:
        # On the meta device only shapes and settings are made, no weights.
        with torch.device("meta"):
            built = identity.architecture.build(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"save_pretrained: arguments={given} do not make this network: {error}") from error
    _check_same(model, built, identity, given)
    return arguments


def _check_same(model: nn.Module, built: nn.Module, identity: Identity, given: Mapping[str, Any] | None) -> None:
    expected = parts_of(built).weights
    held = {name: tensor for name, tensor in identity.state.weights.items() if name in expected}
    misfits = [
        name
        for name, each in expected.items()
        if name not in held or (held[name].shape != each.shape and not is_extra_state(name))
    ]
    if misfits:
        raise ConfigError(
            f"save_pretrained: arguments={given} make another network than this one: {misfits[0]} differs."
        )
    differing = _differing(model, built)
    if differing:
        place, ours, theirs = differing
        raise ConfigError(
            f"save_pretrained: {place} is {ours!r} in this {type(model).__name__}, and {theirs!r} in the one that "
            f"{_arguments_text(identity.architecture, given)} make. The weights do not show this setting: pass it as "
            f"arguments={{...}}, with the value that the constructor was given."
        )


def _arguments_text(architecture: Architecture, given: Mapping[str, Any] | None) -> str:
    return f"arguments={dict(given)}" if given else f"the arguments of {architecture.name} in its state dict"


def _differing(model: nn.Module, built: nn.Module) -> tuple[str, object, object] | None:
    """Returns the first setting in which two networks of one class differ, as (name, ours, theirs), or None.

    Settings are plain attributes of modules, such as a stride or a flag, which no state dict holds.
    """
    others = dict(built.named_modules())
    for name, module in model.named_modules():
        other = others.get(name)
        # Skips patched and fused modules: their settings are not the host's, and are stored elsewhere.
        if type(other) is not type(module) or isinstance(module, ExDAModule):
            continue
        for key, theirs in vars(other).items():
            ours = vars(module).get(key, theirs)
            if (
                key == "training"
                or key.startswith("_")
                or not (isinstance(ours, _PLAIN) and isinstance(theirs, _PLAIN))
            ):
                continue
            if _listed(ours) != _listed(theirs):
                return f"{name}.{key}".removeprefix("."), ours, theirs
    return None


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
