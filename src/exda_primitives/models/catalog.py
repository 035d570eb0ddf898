"""Builds networks by name, or from a checkpoint alone."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import load_checkpoint
from ..checkpoints.contents import Contents, Patterns, read_checkpoint
from ..checkpoints.exda_file import read_header
from ..checkpoints.fit import check_fit, copy_into
from ..checkpoints.network import parts_of, state_of
from ..checkpoints.patched_as import patched_as
from ..checkpoints.split import SplitState, is_extra_state, split_state_dict
from ..errors import CheckpointError, ConfigError, some_of
from ..primitives import ExDAConfig
from ..primitives.description import Description
from .architecture import Architecture, ArchitectureMismatch, StateShapes
from .registry import known_architectures

AUTO = "auto"


@dataclass(frozen=True)
class Identity:
    """Which network a checkpoint is of, and how that is configured.

    Attributes:
        architecture: the network.
        arguments: arguments of its constructor.
        prefix: prefix that a wrapper put before every name.
        state: the weights by the network's own names, the host's and those that ExDA added, with the configurations of
            the attentions that were patched or built in.
        contents: contents of the file.
    """

    architecture: Architecture
    arguments: Mapping[str, Any]
    prefix: str
    state: SplitState
    contents: Contents


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the networks that ``create`` builds.

    Args:
        pattern: shell-style pattern that the names must match, such as ``"*ir"``.

    Examples:
        >>> import exda_primitives as exda
        >>> exda.models.list_models("exda-tiny*")
        ['exda-tiny', 'exda-tiny-3557']
    """
    names = [name for each in known_architectures().values() for name in (each.published or (each.name,))]
    return fnmatch.filter(names, pattern)


def create(
    name: str = AUTO,
    checkpoint: str | PathLike[str] | None = None,
    *,
    param_key: str | None = None,
    config: ExDAConfig | None = None,
    ignore: Patterns = None,
    **arguments: Any,
) -> nn.Module:
    """Builds a network by name or from a checkpoint, and loads the checkpoint if one is given.

    From the checkpoint of a patched network it builds the network patched in the same way, whichever attentions were
    patched and with how many configurations.

    Args:
        name: one of ``list_models``, or ``"auto"`` for the checkpoint's network. With a checkpoint, the name of an
            architecture (``"restormer"``) leaves the configuration to the file, the name of a published configuration
            (``"exda-tiny"``) requires that one.
        checkpoint: a file as for ``exda_primitives.load_checkpoint``, or one that ``exda_primitives.save`` wrote with
            ``whole=True``.
        param_key: the checkpoint's entry with the weights, if several entries have weights.
        config: configuration of an ``exda`` network's primitives. With a checkpoint: the configuration with which its
            attentions were patched, if the file does not record it.
        ignore: pattern or patterns of names in the checkpoint to leave out.
        arguments: further arguments of the network's constructor; they override those of the name or the file.
            Arguments that a state dict does not show must be given unless they are the default: MoCE-IR's ``topk``,
            and of Histoformer, whose norms have no parameters, ``LayerNorm_type``.

    Returns:
        The network on the CPU in the default dtype; in eval mode if a checkpoint was loaded.

    Raises:
        ConfigError: for an unknown name, or ``"auto"`` without a checkpoint.
        CheckpointError: for a file that cannot be read or is of another network.
        ValueError, TypeError: for ``arguments`` that the constructor refuses.

    Examples:
        >>> import exda_primitives as exda
        >>> exda.models.create("restormer", dim=8, num_blocks=[1, 1, 1, 1]).output.weight.shape
        torch.Size([3, 16, 3, 3])
    """
    architectures = known_architectures()
    published = {key: (each, options) for each in architectures.values() for key, options in each.published.items()}
    if checkpoint is not None and (name == AUTO or name in architectures):
        return _from_file(identify(checkpoint, param_key=param_key, config=config, ignore=ignore), name, arguments)
    if name not in published and name not in architectures:
        raise ConfigError(_unknown(name))
    architecture, options = published.get(name) or (architectures[name], {})
    own = {} if config is None else {"config": config}
    model = architecture.build(**{**options, **own, **arguments})
    if checkpoint is not None:
        load_checkpoint(checkpoint, into=model, param_key=param_key, config=config, ignore=ignore)
        model.eval()
    return model


def identify(
    checkpoint: str | PathLike[str],
    *,
    param_key: str | None = None,
    config: ExDAConfig | None = None,
    ignore: Patterns = None,
) -> Identity:
    """Infers, from a state dict alone, its network, the network's arguments, and how it was patched.

    Args:
        checkpoint: a file as for ``create``.
        param_key: the checkpoint's entry with the weights.
        config: configuration of patched attentions, if the file does not record it.
        ignore: pattern or patterns of names to leave out.

    Raises:
        CheckpointError: for a file that cannot be read, is of no known network, or has patched attentions without
            recording their configuration (and ``config`` is not given).
    """
    return identity_of(read_checkpoint(Path(checkpoint), param_key).without(ignore), config)


def identity_of(contents: Contents, config: ExDAConfig | None = None) -> Identity:
    """Does what ``identify`` does, for a file that was already read."""
    known: Mapping[str, Description] = {}
    if contents.is_ours:
        header = read_header(contents)
        known = header.attentions
        if not header.whole:
            raise CheckpointError(
                f"{contents.path}: holds the parameters that ExDA added and no network. Make the network from its own "
                f"checkpoint, then exda.load(model, this file)."
            )
    reasons: list[str] = []
    for prefix, tensors in contents.unprefixed():
        split = split_state_dict(tensors, contents.path, config, known)
        # Only the last turn's reasons are reported: there, all wrappers' prefixes are gone.
        reasons, found = [], []
        for architecture in known_architectures().values():
            try:
                found.append((architecture, *_infer_arguments(architecture, split)))
            except ArchitectureMismatch as mismatch:
                reasons.append(f"{architecture.name}: {mismatch}")
        if found:
            # The state dict of an ``exda`` network also fits its host, patched: a network that has ExDA attentions of
            # its own wins.
            architecture, arguments, _ = max(found, key=lambda each: each[2])
            return Identity(architecture, arguments, prefix, split, contents)
    lines = [f"{contents.path}: is of no network that is known, by its {len(contents.tensors)} names and shapes:"]
    advice = "what a network does not use can be left out with ignore=, a pattern of names"
    raise CheckpointError("\n  ".join([*lines, *reasons, advice]))


def from_state(tensors: Mapping[str, Tensor], source: Path) -> tuple[nn.Module, Identity]:
    """Builds the network of a state dict, as ``create`` does from a file.

    Args:
        tensors: the state dict, with any wrapper's prefix, or a LightningModule's.
        source: file that it is from, for messages.

    Returns:
        The network in eval mode, and what it is.

    Raises:
        CheckpointError: as for ``create``.
    """
    identity = identity_of(Contents.checked(source, tensors, "state_dict", {}))
    return _from_file(identity, AUTO, {}), identity


def _infer_arguments(architecture: Architecture, split: SplitState) -> tuple[Mapping[str, Any], bool]:
    """Returns the architecture's arguments for a state dict, and whether the network has ExDA attentions of its own.

    Raises:
        ArchitectureMismatch: if the network that they build has other keys, shapes or kinds of dtype.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in split.host.items()}
    arguments: Mapping[str, Any] = {}
    try:
        arguments = architecture.infer(StateShapes(shapes, split.attentions))
        with torch.device("meta"):
            network = architecture.build(**arguments)
        parts = parts_of(network)
    except ArchitectureMismatch:
        raise
    except Exception as error:
        # Any error: the shapes may be another network's or arbitrary, and a user's architecture may raise anything.
        raise ArchitectureMismatch(f"cannot be built with {dict(arguments)}: {error}") from error
    # A network with ExDA attentions of its own must have their parameters, too. For any other, only the host's weights
    # are compared; patching comes later.
    own = bool(parts.attentions)
    tensors, expected = (split.weights, parts.weights) if own else (split.host, parts.host)
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        lacks = f"lacks {some_of(missing)}" if missing else ""
        has = f"has beside it {some_of(unexpected)}" if unexpected else ""
        raise ArchitectureMismatch("; ".join(filter(None, (lacks, has))))
    for name, tensor in tensors.items():
        if is_extra_state(name):
            # Its module decides what it accepts.
            continue
        if tensor.shape != expected[name].shape:
            raise ArchitectureMismatch(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise ArchitectureMismatch(f"{name} holds {tensor.dtype}, expected {expected[name].dtype}")
    return arguments, own


def _from_file(identity: Identity, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    path, found = identity.contents.path, identity.architecture.name
    if name not in (AUTO, found):
        raise CheckpointError(f"{path}: is of {found}, not of {name}; create({found!r}) or create({AUTO!r}) takes it.")
    model = identity.architecture.build(**{**identity.arguments, **arguments})
    with patched_as(model, identity.state.attentions, path):
        check_fit(identity.state.weights, parts_of(model, state_of(model, whole=True)).weights, path)
        copy_into(model, identity.state.weights, path, identity.contents.versions_below(identity.prefix))
    return model.eval()


def _unknown(name: str | PathLike[str]) -> str:
    if name == AUTO:
        return f"models.create({AUTO!r}): needs a checkpoint to tell which network is meant."
    if isinstance(name, PathLike) or Path(name).suffix:
        return f"models.create({name!r}): a name comes first; write models.create(checkpoint={str(name)!r}) for a file."
    close = get_close_matches(name, list_models(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"models.create({name!r}): there is no such network.{hint} Known are {', '.join(list_models())}."
