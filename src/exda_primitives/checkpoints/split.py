"""Divides a state dict into the host's weights, those that ExDA added, and the attentions' configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import CheckpointError, some_of
from ..primitives import ExDAConfig
from ..primitives.base import DESCRIPTION, is_new
from ..primitives.description import Description, decoded

_SIGNS = (".token.phi.weight", ".token_gate", ".value.conv_in.weight", ".value.conv_out.weight")
"""Ends of names by which a patched attention is found; it has one, unless it has no tokens and no value parameters."""

# PyTorch's pooling takes strides as int32: a larger one would fail only at the first call.
_LARGEST_STRIDE = 2**31 - 1


class SplitState(NamedTuple):
    """The parts of a state dict; all names are full names in the network.

    Attributes:
        host: weights that the network has without ExDA.
        added: weights that ExDA added, without the configurations.
        attentions: name of each ExDA attention -> its configuration.
    """

    host: Mapping[str, Tensor]
    added: Mapping[str, Tensor]
    attentions: Mapping[str, Description]

    @property
    def weights(self) -> dict[str, Tensor]:
        """All weights, the host's and ExDA's."""
        return {**self.host, **self.added}

    def by_config(self) -> dict[ExDAConfig, list[str]]:
        """Returns configuration -> names of the attentions that have it."""
        return by_config(self.attentions)


def by_config(attentions: Mapping[str, Description]) -> dict[ExDAConfig, list[str]]:
    """Returns configuration -> names of the attentions that have it, in the order of ``attentions``."""
    found: dict[ExDAConfig, list[str]] = {}
    for name, description in attentions.items():
        found.setdefault(description.config, []).append(name)
    return found


def split_state_dict(
    tensors: Mapping[str, Tensor],
    source: object,
    config: ExDAConfig | None = None,
    known: Mapping[str, Description] | None = None,
) -> SplitState:
    """Divides a state dict into the host's weights, added weights and configurations.

    Args:
        tensors: the state dict, without any wrapper's prefix.
        source: where it is from, for messages.
        config: configuration of the attentions for which the state dict holds none.
        known: name of an attention -> its configuration, where known from elsewhere (a file's header).

    Raises:
        CheckpointError: for an attention without a configuration, unless ``config`` is given; for a configuration that
            is damaged or does not fit the attention's weights.
    """
    attentions = dict(known or {})
    own_key = f".{DESCRIPTION}"
    for key, tensor in tensors.items():
        name = f".{key}".removesuffix(own_key).removeprefix(".")
        if f".{key}".endswith(own_key) and (name not in attentions) and _is_ours(tensors, name, tensor, source):
            attentions[name] = decoded(tensor, _at(source, name))
    without_config = [name for name in undescribed(tensors) if name not in attentions]
    if without_config and config is None:
        raise CheckpointError(
            f"{source}: holds parameters that ExDA added to {some_of(without_config)} and does not say with which "
            f"configuration: it was written before state dicts held it. Give the configuration that it was trained "
            f"with, config=ExDAConfig(...)."
        )
    attentions |= {name: Description(config, built_in=False) for name in without_config if config is not None}
    for name, description in attentions.items():
        added = {_inside(key, name): tensors[key] for key in _below(tensors, name) if is_new(_inside(key, name))}
        _check_plausible(description.config, added, _at(source, name))
    return split_by_attentions(tensors, attentions)


def is_extra_state(name: str) -> bool:
    """Whether an entry of a state dict is what a module's ``get_extra_state`` returned."""
    return name.rpartition(".")[2] == DESCRIPTION


def split_by_attentions(tensors: Mapping[str, Tensor], attentions: Mapping[str, Description]) -> SplitState:
    """Divides a state dict into the host's and the added weights of these ``attentions``."""
    added = {key: tensors[key] for name in attentions for key in _below(tensors, name) if is_new(_inside(key, name))}
    left_out = added.keys() | {f"{name}.{DESCRIPTION}".removeprefix(".") for name in attentions}
    return SplitState({key: tensor for key, tensor in tensors.items() if key not in left_out}, added, attentions)


def undescribed(tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of attentions with parameters that ExDA added, but without a configuration."""
    found = dict.fromkeys(
        f".{key}".removesuffix(sign) for key in tensors for sign in _SIGNS if f".{key}".endswith(sign)
    )
    return [name.removeprefix(".") for name in found if f"{name}.{DESCRIPTION}".removeprefix(".") not in tensors]


def _is_ours(tensors: Mapping[str, Tensor], name: str, tensor: Tensor, source: object) -> bool:
    """Whether an extra state is an ExDA attention's: it can be decoded, or ExDA's parameters have the same prefix.

    Any module may have an extra state. One with ExDA's parameters that cannot be decoded is damaged: an error later.
    """
    try:
        decoded(tensor, _at(source, name))
    except CheckpointError:
        return any(is_new(_inside(key, name)) for key in _below(tensors, name))
    return True


def _check_plausible(config: ExDAConfig, added: Mapping[str, Tensor], owner: str) -> None:
    """Refuses a configuration that does not fit its weights, before a model of that size is built."""
    # Phi (h*K, C, 1, 1): h*K maps, a multiple of K, or C of them for ``tokens="channels"``; none without tokens.
    maps, channels = [*added["token.phi.weight"].shape[:2], 0, 0][:2] if "token.phi.weight" in added else (0, 0)
    if isinstance(config.tokens, int):
        fits = maps % config.tokens == 0 < maps if config.tokens else not maps
    else:
        fits = maps == channels > 0
    if added and (not fits or config.stride > _LARGEST_STRIDE):
        raise CheckpointError(
            f"{owner}: its configuration, {config}, does not fit its weights, which have {maps} token maps in all."
        )


def _below(keys: Iterable[str], name: str) -> list[str]:
    """Returns the keys inside the module ``name``; all for the root, whose name is empty."""
    return [key for key in keys if key.startswith(f"{name}.")] if name else list(keys)


def _inside(key: str, name: str) -> str:
    """Returns a key relative to the module ``name``."""
    return key.removeprefix(f"{name}.") if name else key


def _at(source: object, name: str) -> str:
    return f"{source}: {name}" if name else str(source)
