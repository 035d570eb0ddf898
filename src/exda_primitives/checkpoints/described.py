"""The weights of a file, told apart: what is the host's, what ExDA added, and with which configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import CheckpointError, some_of
from ..primitives import ExDAConfig
from ..primitives.base import DESCRIPTION, is_new
from ..primitives.description import Description, decoded

_SIGNS = (".token.phi.weight", ".token_gate", ".value.conv_in.weight", ".value.conv_out.weight")
"""An attention has at least one of these, unless its value has no parameters and it has no tokens."""

_LARGEST_STRIDE = 2**31 - 1


class Described(NamedTuple):
    """A state dict, told apart.

    Attributes:
        host: weights that the network has without ExDA.
        added: weights that ExDA added, by their names in the network, without the configurations.
        attentions: name -> configuration.
    """

    host: Mapping[str, Tensor]
    added: Mapping[str, Tensor]
    attentions: Mapping[str, Description]

    @property
    def weights(self) -> dict[str, Tensor]:
        """All of them."""
        return {**self.host, **self.added}

    def by_config(self) -> dict[ExDAConfig, list[str]]:
        """The attentions with each configuration, by name."""
        return by_config(self.attentions)


def by_config(attentions: Mapping[str, Description]) -> dict[ExDAConfig, list[str]]:
    """The names of each configuration, in the order in which they come."""
    found: dict[ExDAConfig, list[str]] = {}
    for name, description in attentions.items():
        found.setdefault(description.config, []).append(name)
    return found


def described(
    tensors: Mapping[str, Tensor],
    source: object,
    config: ExDAConfig | None = None,
    known: Mapping[str, Description] | None = None,
) -> Described:
    """Tells the weights of a state dict apart.

    Args:
        tensors: the state dict, without any wrapper's prefix.
        source: of it, for messages.
        config: with which attentions were patched whose configuration is not in the state dict.
        known: configurations that are known from elsewhere, by the attention's name.

    Raises:
        CheckpointError: for an attention without a configuration, unless ``config`` is given; for a configuration that
            is damaged, or that the weights beside it do not fit.
    """
    attentions = dict(known or {})
    own_key = f".{DESCRIPTION}"
    for key, tensor in tensors.items():
        name = f".{key}".removesuffix(own_key).removeprefix(".")
        if f".{key}".endswith(own_key) and (name not in attentions) and _is_ours(tensors, name, tensor, source):
            attentions[name] = decoded(tensor, _at(source, name))
    silent = [name for name in undescribed(tensors) if name not in attentions]
    if silent and config is None:
        raise CheckpointError(
            f"{source}: holds parameters that ExDA added to {some_of(silent)} and does not say with which "
            f"configuration: it was written before attentions said so in their state dict. Give the configuration that "
            f"it was trained with, config=ExDAConfig(...)."
        )
    attentions |= {name: Description(config, built_in=False) for name in silent if config is not None}
    for name, description in attentions.items():
        added = {_inside(key, name): tensors[key] for key in _below(tensors, name) if is_new(_inside(key, name))}
        _check_plausible(description.config, added, _at(source, name))
    return told_apart(tensors, attentions)


def told_apart(tensors: Mapping[str, Tensor], attentions: Mapping[str, Description]) -> Described:
    """A state dict of which the attentions are known."""
    added = {key: tensors[key] for name in attentions for key in _below(tensors, name) if is_new(_inside(key, name))}
    left_out = added.keys() | {f"{name}.{DESCRIPTION}".removeprefix(".") for name in attentions}
    return Described({key: tensor for key, tensor in tensors.items() if key not in left_out}, added, attentions)


def undescribed(tensors: Mapping[str, Tensor]) -> list[str]:
    """The attentions with parameters that ExDA added and no configuration, by name."""
    found = dict.fromkeys(
        f".{key}".removesuffix(sign) for key in tensors for sign in _SIGNS if f".{key}".endswith(sign)
    )
    return [name.removeprefix(".") for name in found if f"{name}.{DESCRIPTION}".removeprefix(".") not in tensors]


def _is_ours(tensors: Mapping[str, Tensor], name: str, tensor: Tensor, source: object) -> bool:
    """PyTorch lets any module have such an entry: ours is one that can be read, or stands beside what ExDA added."""
    try:
        decoded(tensor, _at(source, name))
    except CheckpointError:
        return any(is_new(_inside(key, name)) for key in _below(tensors, name))
    return True


def _check_plausible(config: ExDAConfig, added: Mapping[str, Tensor], owner: str) -> None:
    """Before anything of that size is made."""
    maps, channels = [*added["token.phi.weight"].shape[:2], 0, 0][:2] if "token.phi.weight" in added else (0, 0)
    if isinstance(config.tokens, int):
        fits = maps % config.tokens == 0 < maps if config.tokens else not maps
    else:
        fits = maps == channels > 0
    if added and (not fits or config.stride > _LARGEST_STRIDE):
        raise CheckpointError(
            f"{owner}: its configuration, {config}, does not fit its weights, which are of {maps} token maps in all."
        )


def _below(keys: Iterable[str], name: str) -> list[str]:
    return [key for key in keys if key.startswith(f"{name}.")] if name else list(keys)


def _inside(key: str, name: str) -> str:
    return key.removeprefix(f"{name}.") if name else key


def _at(source: object, name: str) -> str:
    return f"{source}: {name}" if name else str(source)
