"""Which network a model is, and whether its constructor's arguments say all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...checkpoints.contents import Contents
from ...checkpoints.network import parts_of, state_of
from ...errors import ConfigError
from ...models.architecture import Architecture
from ...models.catalog import Identity, identity_of
from ...primitives import ExDAModule

_PLAIN = (bool, int, float, str, tuple, list, type(None))


def identified(model: nn.Module) -> Identity:
    """The network that a model is, by its state dict.

    Raises:
        CheckpointError: for one that is not known, or whose weights are not all plain and finite.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state_of(model).items()}
    return identity_of(Contents.checked(Path(f"this {type(model).__name__}"), tensors, None, {}))


def arguments_of(model: nn.Module, identity: Identity, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments that make this network: what its state dict says, and what it leaves no trace of.

    Args:
        model: the network.
        identity: by its state dict.
        given: arguments that win over those.

    Raises:
        ConfigError: for arguments that make another one.
    """
    arguments = {**identity.arguments, **(given or {})}
    try:
        with torch.device("meta"):
            built = identity.architecture.build(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"save_pretrained: arguments={given} do not make this network: {error}") from error
    _check_same(model, built, identity, given)
    return arguments


def _check_same(model: nn.Module, built: nn.Module, identity: Identity, given: Mapping[str, Any] | None) -> None:
    expected = parts_of(built).weights
    held = {name: tensor for name, tensor in identity.held.weights.items() if name in expected}
    unlike = [name for name, each in expected.items() if name not in held or held[name].shape != each.shape]
    if unlike:
        raise ConfigError(
            f"save_pretrained: arguments={given} make another network than this one: {unlike[0]} differs."
        )
    differing = _differing(model, built)
    if differing:
        place, ours, theirs = differing
        raise ConfigError(
            f"save_pretrained: {place} is {ours!r} in this {type(model).__name__}, and {theirs!r} in the one that "
            f"{_said(identity.architecture, given)} make. Its weights do not show it: say it with arguments={{...}}, "
            f"as the constructor was told."
        )


def _said(architecture: Architecture, given: Mapping[str, Any] | None) -> str:
    return f"arguments={dict(given)}" if given else f"the arguments of {architecture.name} in its state dict"


def _differing(model: nn.Module, built: nn.Module) -> tuple[str, object, object] | None:
    """The first setting in which two networks of one class differ: those are no tensors, and in no state dict."""
    others = dict(built.named_modules())
    for name, module in model.named_modules():
        other = others.get(name)
        # What was patched in or fused says its settings elsewhere.
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
