"""Our own files: safetensors whose tensors say how their attentions are configured, and a header for people."""

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
from .described import Described, described
from .filling import patched_as
from .fit import check_fit, copy_into
from .host import check_host, fingerprint
from .io import write_safetensors
from .network import attentions_of, inside, parts_of, state_of
from .sharded import gathered_state, is_sharded

VERSION = 2


class Header(NamedTuple):
    """Whether the file holds the host's weights too, what tells them from others, and what version 1 said besides."""

    whole: bool
    host: Any
    attentions: Mapping[str, Description]


def save(model: nn.Module, path: str | PathLike[str], *, whole: bool = False) -> None:
    """Writes the parameters that ExDA added, or everything, with the configurations, as one safetensors file.

    The parameters alone are of use on the host that they were trained on. The file holds a fingerprint of its weights,
    and ``load`` compares. A host that was trained as well needs ``whole=True``.

    Args:
        model: a network with ExDA attentions, patched in or built in, bare or in DataParallel, DDP, an averaged model,
            a compiled one or a LightningModule; the names in the file are those of the bare network. Of a network in
            FSDP, of either kind, all processes call this, and the first one writes.
        path: the file; replaced whole or not at all.
        whole: the entire state dict instead of the new parameters alone.

    Raises:
        NotPatchedError: for a model without ExDA attentions.
        OSError: when the file cannot be written.

    Example:
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
        state = gathered_state(model)
    else:
        model = inside(model, "save")
        state = state_of(model)
    attentions = attentions_of(model)
    if not attentions:
        raise NotPatchedError(f"{type(model).__name__} holds no ExDA attention: exda.patch(model) first.")
    if state is None:
        # Another process has the weights, and writes.
        return
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "whole": json.dumps(whole),
        "attentions": json.dumps({name: module.config.as_dict() for name, module in attentions.items()}),
        "host": json.dumps(None if whole else fingerprint(parts_of(model, state).host)),
    }
    write_safetensors(state if whole else _added(state, attentions), header, Path(path))


def load(model: nn.Module, path: str | PathLike[str], *, any_host: bool = False) -> None:
    """Loads what ``save`` wrote; what is not patched is first patched as the file says.

    Args:
        model: without ExDA attentions, or with the file's, configured as there; wrapped as for ``save``, but for
            FSDP.
        path: the file.
        any_host: load parameters that were trained on a host with other weights, too.

    Raises:
        CheckpointError: for a file that is damaged, not ours, of a newer version, or does not fit, or whose parameters
            were trained on a host with other weights. On this and any other error the model is as it was.
        AlreadyPatchedError: for a model that is patched with another configuration.
        NoMatchError, PatternError, WrappedModelError: as for ``exda_primitives.patch``, when the model cannot be
            patched so.
    """
    path = Path(path)
    contents = read_checkpoint(path)
    header = read_header(contents)
    model = inside(model, "load")
    load_file(model, header, described(contents.tensors, path, known=header.attentions), path, any_host)


def load_file(model: nn.Module, header: Header, held: Described, path: Path, any_host: bool) -> None:
    """``load`` for a file that is read already and a network without wrappers."""
    same = {id(module) for name, module in attentions_of(model, aliases=True).items() if name in held.attentions}
    more = [name for name, module in attentions_of(model).items() if id(module) not in same]
    if more:
        raise CheckpointError(
            f"{path}: was saved from a model with {len(held.attentions)} ExDA attentions, this one has others: "
            f"{some_of(more)}."
        )
    with patched_as(model, held.attentions, path):
        own = parts_of(model)
        once = _added(own.added, attentions_of(model))
        check_fit(held.weights, own.weights if header.whole else once, path)
        if not (header.whole or any_host):
            check_host(header.host, own.host, path)
        copy_into(model, held.weights, path)


def read_header(contents: Contents) -> Header:
    """What ``save`` wrote beside the tensors.

    Raises:
        CheckpointError: for a file that it did not write, or of which the header is damaged or of a newer version.
    """
    path, held = contents.path, contents.metadata
    if not contents.is_ours:
        raise CheckpointError(f"{path}: was not written by exda.save; for other checkpoints use exda.load_checkpoint.")
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
                raise ValueError("the host's fingerprint is none")
            return Header(whole, host, {})
        # Here the header alone said how the model was patched: everywhere alike.
        config = Description(ExDAConfig(**json.loads(held["config"])), built_in=False)
        return Header(whole, None, {str(name): config for name in json.loads(held["modules"])})
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({type(error).__name__}: {error}).") from error


def _added(state: Mapping[str, Tensor], attentions: Mapping[str, ExDAModule]) -> dict[str, Tensor]:
    """What ExDA added to these attentions, their configurations included."""
    found = {}
    for name in attentions:
        prefix = f"{name}." if name else ""
        for key, tensor in state.items():
            inner = key.removeprefix(prefix)
            if key.startswith(prefix) and (is_new(inner) or inner == DESCRIPTION):
                found[key] = tensor
    return found
