"""Networks by name, and from nothing but a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import load, load_checkpoint
from ..checkpoints.contents import Contents, read_checkpoint
from ..checkpoints.ours import host_weights
from ..checkpoints.safe import check_fit, copy_into
from ..errors import CheckpointError, ConfigError, some_of
from ..patching import Architecture, StateShapes, Unlike
from ..patching.registry import known_architectures

AUTO = "auto"


@dataclass(frozen=True)
class Identity:
    """Which network a checkpoint is of.

    Attributes:
        architecture: the network.
        arguments: of its constructor.
        prefix: what a wrapper put before every name.
        tensors: the host's weights, by the network's own names.
        contents: of the file.
    """

    architecture: Architecture
    arguments: Mapping[str, Any]
    prefix: str
    tensors: Mapping[str, Tensor]
    contents: Contents


def names() -> list[str]:
    """What :func:`create` builds by name."""
    return [name for each in known_architectures().values() for name in (each.published or (each.name,))]


def create(name: str = AUTO, checkpoint: str | PathLike[str] | None = None, **arguments: Any) -> nn.Module:
    """Builds a network, by name or as a checkpoint says, and loads the checkpoint.

    Args:
        name: one of :func:`names`, or ``"auto"``: whichever network the checkpoint is of. With a checkpoint, an
            architecture's name (``"restormer"``) stands for the configuration in the file, that of a published
            configuration (``"exda-tiny"``) for that very one.
        checkpoint: as for :func:`exda_primitives.load_checkpoint`, or what :func:`exda_primitives.save` wrote with
            ``whole=True``: then the network comes patched.
        arguments: of the network's constructor, which win over what the name or the file says. What leaves no trace in
            a state dict has to be given, if it is not the default: the stride, scale, re-injection and position of an
            ``exda`` network's primitives (``config=``), MoCE-IR's ``topk``.

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
        return _from_file(identify(checkpoint), name, arguments)
    if name not in published and name not in architectures:
        raise ConfigError(_unknown(name))
    architecture, options = published.get(name) or (architectures[name], {})
    model = architecture.build(**{**options, **arguments})
    if checkpoint is not None:
        load_checkpoint(checkpoint, into=model)
        model.eval()
    return model


def identify(checkpoint: str | PathLike[str]) -> Identity:
    """Tells from a state dict alone which network it is of, and how that was configured.

    Args:
        checkpoint: as for :func:`create`.

    Raises:
        CheckpointError: for a file that cannot be read, or is of no network that is known.
    """
    return identity_of(read_checkpoint(Path(checkpoint)))


def identity_of(contents: Contents) -> Identity:
    """:func:`identify` for a file that is read already."""
    reasons: list[str] = []
    for prefix, tensors in contents.unprefixed():
        host = host_weights(contents, tensors)
        # Of the last turn, with all wrappers' prefixes gone, the reasons say most.
        reasons = []
        for architecture in known_architectures().values():
            try:
                arguments = _inferred(architecture, host)
            except Unlike as unlike:
                reasons.append(f"{architecture.name}: {unlike}")
            else:
                return Identity(architecture, arguments, prefix, host, contents)
    lines = [f"{contents.path}: is of no network that is known, by its {len(contents.tensors)} names and shapes:"]
    raise CheckpointError("\n  ".join([*lines, *reasons]))


def _inferred(architecture: Architecture, tensors: Mapping[str, Tensor]) -> Mapping[str, Any]:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arguments: Mapping[str, Any] = {}
    try:
        arguments = architecture.infer(StateShapes(shapes))
        with torch.device("meta"):
            state = architecture.build(**arguments).state_dict()
    except Unlike:
        raise
    except Exception as error:
        # Whatever a network makes of shapes that may be another's, or nobody's.
        raise Unlike(f"cannot be built with {dict(arguments)}: {error}") from error
    missing, foreign = sorted(state.keys() - shapes.keys()), sorted(shapes.keys() - state.keys())
    if missing or foreign:
        lacks = f"lacks {some_of(missing)}" if missing else ""
        has = f"has beside it {some_of(foreign)}" if foreign else ""
        raise Unlike("; ".join(filter(None, (lacks, has))))
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape:
            raise Unlike(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(state[name].shape)}")
        if tensor.is_floating_point() != state[name].is_floating_point():
            raise Unlike(f"{name} holds {tensor.dtype}, expected {state[name].dtype}")
    return arguments


def _from_file(identity: Identity, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    path, found = identity.contents.path, identity.architecture.name
    if name not in (AUTO, found):
        raise CheckpointError(f"{path}: is of {found}, not of {name}; create({found!r}) or create({AUTO!r}) takes it.")
    model = identity.architecture.build(**{**identity.arguments, **arguments})
    if identity.contents.is_ours:
        load(model, path)
        return model.eval()
    return _filled(model, identity.tensors, path)


def _filled(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    check_fit(tensors, model.state_dict(), path)
    copy_into(model, tensors)
    return model.eval()


def _unknown(name: str) -> str:
    if name == AUTO:
        return f"models.create({AUTO!r}): needs a checkpoint to tell which network is meant."
    close = get_close_matches(name, names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"models.create({name!r}): there is no such network.{hint} Known are {', '.join(names())}."
