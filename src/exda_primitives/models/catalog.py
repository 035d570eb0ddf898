"""Networks by name, and from nothing but a checkpoint."""

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
from ..checkpoints.described import Described, described
from ..checkpoints.exda_file import read_header
from ..checkpoints.filling import patched_as
from ..checkpoints.fit import check_fit, copy_into
from ..checkpoints.network import parts_of
from ..errors import CheckpointError, ConfigError, some_of
from ..primitives import ExDAConfig
from ..primitives.base import DESCRIPTION
from ..primitives.description import Description
from .architecture import Architecture, ArchitectureMismatch, StateShapes
from .registry import known_architectures

AUTO = "auto"


@dataclass(frozen=True)
class Identity:
    """Which network a checkpoint is of.

    Attributes:
        architecture: the network.
        arguments: of its constructor.
        prefix: what a wrapper put before every name.
        held: the weights by the network's own names, the host's and those that ExDA added, with the configurations of
            the attentions that were patched or built in.
        contents: of the file.
    """

    architecture: Architecture
    arguments: Mapping[str, Any]
    prefix: str
    held: Described
    contents: Contents


def list_models(pattern: str = "*") -> list[str]:
    """The names by which ``create`` builds networks.

    Args:
        pattern: of names, as of files: ``"*ir"``.

    Example:
        >>> import exda_primitives as exda
        >>> exda.models.list_models("exda-*")
        ['exda-base', 'exda-small', 'exda-tiny']
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
    """Builds a network, by name or as a checkpoint says, and loads the checkpoint.

    The checkpoint of a patched network gives that network patched as it was, in whatever attentions and with however
    many configurations.

    Args:
        name: one of ``list_models``, or ``"auto"``: whichever network the checkpoint is of. With a checkpoint, an
            architecture's name (``"restormer"``) stands for the configuration in the file, that of a published
            configuration (``"exda-tiny"``) for that very one.
        checkpoint: as for ``exda_primitives.load_checkpoint``, or what ``exda_primitives.save`` wrote with
            ``whole=True``.
        param_key: the entry of the checkpoint that holds the weights, for a file with several.
        config: of the primitives of an ``exda`` network; with a checkpoint, the configuration with which its attentions
            were patched where it does not say so itself.
        ignore: pattern or patterns of names in the checkpoint that are left out.
        arguments: of the network's constructor, which win over what the name or the file says. What leaves no trace in
            a state dict has to be given, if it is not the default: MoCE-IR's ``topk``.

    Returns:
        The network in eval mode where a checkpoint was loaded, on the CPU, in the default dtype.

    Raises:
        ConfigError: for a name that is not known, or ``"auto"`` without a checkpoint.
        CheckpointError: for a file that cannot be read or is not of that network.
        ValueError, TypeError: for ``arguments`` that the constructor refuses.

    Example:
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
    """Tells from a state dict alone which network it is of, how that was configured, and how it was patched.

    Args:
        checkpoint: as for ``create``, as are ``param_key``, ``config`` and ``ignore``.
        param_key: entry with the weights.
        config: of attentions that do not say theirs.
        ignore: patterns of names to leave out.

    Raises:
        CheckpointError: for a file that cannot be read, is of no network that is known, or does not say how its
            attentions were patched.
    """
    return identity_of(read_checkpoint(Path(checkpoint), param_key).without(ignore), config)


def identity_of(contents: Contents, config: ExDAConfig | None = None) -> Identity:
    """``identify`` for a file that is read already."""
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
        held = described(tensors, contents.path, config, known)
        # Of the last turn, with all wrappers' prefixes gone, the reasons say most.
        reasons, found = [], []
        for architecture in known_architectures().values():
            try:
                found.append((architecture, *_inferred(architecture, held)))
            except ArchitectureMismatch as unlike:
                reasons.append(f"{architecture.name}: {unlike}")
        if found:
            # A network with ExDA attentions of its own is meant rather than the host, patched.
            architecture, arguments, _ = max(found, key=lambda each: each[2])
            return Identity(architecture, arguments, prefix, held, contents)
    lines = [f"{contents.path}: is of no network that is known, by its {len(contents.tensors)} names and shapes:"]
    advice = "what a network does not use can be left out with ignore=, a pattern of names"
    raise CheckpointError("\n  ".join([*lines, *reasons, advice]))


def from_state(tensors: Mapping[str, Tensor], source: Path) -> tuple[nn.Module, Identity]:
    """The network of a state dict, as ``create`` builds that of a file.

    Args:
        tensors: the state dict, with whatever prefix, or a LightningModule's.
        source: of it, for messages.

    Returns:
        The network in eval mode, and what it is.

    Raises:
        CheckpointError: as for ``create``.
    """
    identity = identity_of(Contents.checked(source, tensors, "state_dict", {}))
    return _from_file(identity, AUTO, {}), identity


def _inferred(architecture: Architecture, held: Described) -> tuple[Mapping[str, Any], bool]:
    """Its arguments, and whether it has ExDA attentions of its own."""
    shapes = {name: tuple(tensor.shape) for name, tensor in held.host.items()}
    arguments: Mapping[str, Any] = {}
    try:
        arguments = architecture.infer(StateShapes(shapes, held.attentions))
        with torch.device("meta"):
            state = architecture.build(**arguments).state_dict()
    except ArchitectureMismatch:
        raise
    except Exception as error:
        # Whatever a network makes of shapes that may be another's, or nobody's.
        raise ArchitectureMismatch(f"cannot be built with {dict(arguments)}: {error}") from error
    # Of a network with ExDA attentions of its own, what they added is expected, too.
    own = [name for name in state if name.rpartition(".")[2] == DESCRIPTION]
    tensors = held.weights if own else held.host
    expected = {name: tensor for name, tensor in state.items() if name not in own}
    missing, foreign = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or foreign:
        lacks = f"lacks {some_of(missing)}" if missing else ""
        has = f"has beside it {some_of(foreign)}" if foreign else ""
        raise ArchitectureMismatch("; ".join(filter(None, (lacks, has))))
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise ArchitectureMismatch(
                f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
        if tensor.is_floating_point() != expected[name].is_floating_point():
            raise ArchitectureMismatch(f"{name} holds {tensor.dtype}, expected {expected[name].dtype}")
    return arguments, bool(own)


def _from_file(identity: Identity, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    path, found = identity.contents.path, identity.architecture.name
    if name not in (AUTO, found):
        raise CheckpointError(f"{path}: is of {found}, not of {name}; create({found!r}) or create({AUTO!r}) takes it.")
    model = identity.architecture.build(**{**identity.arguments, **arguments})
    with patched_as(model, identity.held.attentions, path):
        check_fit(identity.held.weights, parts_of(model).weights, path)
        copy_into(model, identity.held.weights, path)
    return model.eval()


def _unknown(name: str | PathLike[str]) -> str:
    if name == AUTO:
        return f"models.create({AUTO!r}): needs a checkpoint to tell which network is meant."
    if isinstance(name, PathLike) or Path(name).suffix:
        return f"models.create({name!r}): a name comes first; write models.create(checkpoint={str(name)!r}) for a file."
    close = get_close_matches(name, list_models(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"models.create({name!r}): there is no such network.{hint} Known are {', '.join(list_models())}."
