"""This library's own files: safetensors with each attention's configuration as a tensor, and a readable header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import CheckpointError, NotPatchedError, some_of
from ..primitives import ExDAConfig, ExDAModule
from ..primitives.base import DESCRIPTION, is_new
from ..primitives.description import Description
from .contents import FORMAT, Contents, read_checkpoint
from .fingerprint import check_host, fingerprint
from .fit import check_fit, copy_into
from .io import write_safetensors
from .network import attentions_of, inside, parts_of, state_of
from .patched_as import patched_as
from .sharded import gathered_state, is_sharded
from .split import SplitState, split_state_dict

VERSION = 2

_ANY_OTHER = "for other checkpoints use exda.load_checkpoint"
_OTHERS = {"exda_primitives.adaptation": "exda adapt wrote it: use exda_primitives.adaptation.load"}
"""Format of a file -> what reads it."""


class Header(NamedTuple):
    """What the header of a file says.

    Attributes:
        whole: whether the file holds the host's weights, too.
        host: fingerprint of the host's weights, see ``fingerprint``; None if there is none.
        attentions: name -> configuration in a file of version 1, which keeps them here; empty for later versions.
    """

    whole: bool
    host: Any
    attentions: Mapping[str, Description]


def save(model: nn.Module, path: str | PathLike[str], *, whole: bool = False) -> None:
    """Writes the parameters that ExDA added, or all weights, with the configurations to one safetensors file.

    The new parameters alone are useful only on the host that they were trained on: the file holds a fingerprint of the
    host's weights, which ``load`` compares. If the host was trained as well, use ``whole=True``.

    Args:
        model: a network with ExDA attentions, patched in or built in; bare, or in DataParallel, DDP, an averaged model,
            a compiled one or a LightningModule. The names in the file are those of the bare network. For a network in
            FSDP, of either kind, all processes have to call this; the first one writes.
        path: the file; an existing one is replaced whole or not at all.
        whole: save the entire state dict instead of the new parameters alone.

    Raises:
        NotPatchedError: for a model without ExDA attentions.
        CheckpointError: with ``whole``, for a state dict with anything but tensors, such as another extra state.
        OSError: when the file cannot be written.

    Examples:
        >>> import tempfile, exda_primitives as exda
        >>> model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> report = exda.patch(model)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exda.save(model, f"{folder}/exda.safetensors")
        ...     exda.unpatch(model)[0]
        ...     exda.load(model, f"{folder}/exda.safetensors")
        'encoder_level1.0.attn'
        >>> exda.is_patched(model)
        True
    """
    state: Mapping[str, Tensor] | None
    if is_sharded(model):
        state = gathered_state(model, whole=whole)
    else:
        model = inside(model, "save")
        state = state_of(model, whole=whole)
    attentions = attentions_of(model)
    if not attentions:
        raise NotPatchedError(f"{type(model).__name__} holds no ExDA attention: exda.patch(model) first.")
    if state is None:
        # FSDP: the first process has the weights, and writes.
        return
    header = metadata_of(attentions, None if whole else parts_of(model, state).host)
    write_safetensors(state if whole else added_tensors(state, attentions), header, Path(path))


def metadata_of(attentions: Mapping[str, ExDAModule], host: Mapping[str, Tensor] | None) -> dict[str, str]:
    """Returns the metadata of a file, which ``read_header`` reads.

    Args:
        attentions: the network's ExDA attentions by name.
        host: the host's weights, for the fingerprint; None for a file with all weights.
    """
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "whole": json.dumps(host is None),
        "attentions": json.dumps({name: module.config.as_dict() for name, module in attentions.items()}),
        "host": json.dumps(None if host is None else fingerprint(host)),
    }


def load(model: nn.Module, path: str | PathLike[str], *, any_host: bool = False) -> None:
    """Loads a file that ``save`` wrote; attentions of the file that are not patched yet are patched first.

    The model's own ``load_state_dict`` loads the weights: hooks run, and extra states are set.

    Args:
        model: a model without ExDA attentions, or with the file's, in the same configurations; it may be wrapped as for
            ``save``, except in FSDP.
        path: the file.
        any_host: also load parameters that were trained on a host with other weights.

    Raises:
        CheckpointError: if the file is damaged, was not written by ``save``, was written by a newer version of it, does
            not fit the model, or holds parameters that were trained on a host with other weights; if the model's
            tensors cannot be written to, or its hooks raise an error; and for a whole file, if the model's state dict
            holds anything but tensors. On this and any other error the model is unchanged.
        AlreadyPatchedError: if an attention of the model is patched with another configuration.
        NoMatchError, PatternError, WrappedModelError: as for ``exda_primitives.patch``, if the model cannot be patched
            as the file says.
    """
    load_contents(model, read_checkpoint(Path(path)), any_host)


def load_contents(model: nn.Module, contents: Contents, any_host: bool) -> None:
    """Loads a file whose contents have been read already, see ``load``."""
    header = read_header(contents)
    model = inside(model, "load")
    held = split_state_dict(contents.tensors, contents.path, known=header.attentions)
    load_file(model, header, held, contents.path, any_host)


def load_file(
    model: nn.Module,
    header: Header,
    held: SplitState,
    path: Path,
    any_host: bool,
    changed: Mapping[str, Tensor] | None = None,
) -> None:
    """Loads a file that has been read already into a network without wrappers, see ``load``.

    Args:
        model: the network.
        header: the file's header.
        held: the file's weights.
        path: the file, for messages.
        any_host: as for ``load``.
        changed: canonical name -> new value of weights of the host, once the host has been found to be the right one.
    """
    # A shared attention has several names; the file may hold any of them.
    same = {id(module) for name, module in attentions_of(model, aliases=True).items() if name in held.attentions}
    more = [name for name, module in attentions_of(model).items() if id(module) not in same]
    if more:
        raise CheckpointError(
            f"{path}: was saved from a model with {len(held.attentions)} ExDA attentions, this one has others: "
            f"{some_of(more)}."
        )
    with patched_as(model, held.attentions, path):
        own = parts_of(model, state_of(model, whole=header.whole))
        # ``save`` writes a shared attention's parameters under its first name alone.
        once = added_tensors(own.added, attentions_of(model))
        check_fit(held.weights, own.weights if header.whole else once, path)
        if not (header.whole or any_host):
            check_host(header.host, own.host, path)
        copy_into(model, {**held.weights, **(changed or {})}, path)


def read_header(contents: Contents) -> Header:
    """Returns the header that ``save`` wrote.

    Raises:
        CheckpointError: if ``save`` did not write the file, or its header is damaged or of a newer version.
    """
    path, held = contents.path, contents.metadata
    if not contents.is_ours:
        raise CheckpointError(
            f"{path}: was not written by exda.save; {_OTHERS.get(held.get('format', ''), _ANY_OTHER)}."
        )
    try:
        version = int(held["version"])
        if version > VERSION:
            raise CheckpointError(
                f"{path}: is of version {version}, this library reads up to {VERSION}; upgrade exda_primitives."
            )
        whole = json.loads(held["whole"]) is True
        if version > 1:
            host = json.loads(held["host"])
            if host is not None and not isinstance(host, dict):
                raise ValueError("the host's fingerprint is not a dictionary")
            return Header(whole, host, {})
        # Version 1: only the header holds the configuration, one for all attentions.
        config = Description(ExDAConfig(**json.loads(held["config"])), built_in=False)
        return Header(whole, None, {str(name): config for name in json.loads(held["modules"])})
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({type(error).__name__}: {error}).") from error


def added_tensors(state: Mapping[str, Tensor], attentions: Mapping[str, ExDAModule]) -> dict[str, Tensor]:
    """Returns the entries of ``state`` that ExDA added to these attentions, their configurations included."""
    found = {}
    for name in attentions:
        prefix = f"{name}." if name else ""
        for key, tensor in state.items():
            inner = key.removeprefix(prefix)
            if key.startswith(prefix) and (is_new(inner) or inner == DESCRIPTION):
                found[key] = tensor
    return found
