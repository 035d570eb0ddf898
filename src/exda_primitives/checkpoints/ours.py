"""Our own files: safetensors with the configuration and the names of the patched attentions in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..errors import CheckpointError, ExDAError, some_of
from ..patching import config_of, patch
from ..patching.patch import patched_attentions, undo
from ..patching.wrappers import unwrap
from ..primitives import ExDAConfig
from ..primitives.base import NEW_NAMES
from .contents import FORMAT, Contents, read_checkpoint
from .safe import check_fit, copy_into, write_safetensors

VERSION = 1
_LARGEST = 2**31 - 1


class Header(NamedTuple):
    """How the model was patched, in which attentions, and whether the file holds the host's weights, too."""

    config: ExDAConfig
    modules: list[str]
    whole: bool


def save(model: nn.Module, path: str | PathLike[str], *, whole: bool = False) -> None:
    """Writes the parameters that ExDA added, or everything, with the configuration, as one safetensors file.

    Args:
        model: a patched model.
        path: the file; replaced whole or not at all.
        whole: the entire state dict instead of the new parameters alone.

    Raises:
        NotPatchedError: for a model that is not patched.
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
    model, _ = unwrap(model)
    config = config_of(model)
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config.as_dict()),
        "modules": json.dumps(_patched_names(model)),
        "whole": json.dumps(whole),
    }
    write_safetensors(model.state_dict() if whole else _new_state(model), header, Path(path))


def load(model: nn.Module, path: str | PathLike[str]) -> None:
    """Loads what :func:`save` wrote; an unpatched model is first patched as the file says.

    Args:
        model: an unpatched model, or one that is patched with the file's configuration at the file's attentions.
        path: the file.

    Raises:
        CheckpointError: for a file that is damaged, not ours, of a newer version, or does not fit; the model is as it
            was.
        AlreadyPatchedError: for a model that is patched with another configuration.
        NoMatchError, PatternError, WrappedModelError: as for :func:`patch`, when the model cannot be patched so.
    """
    path = Path(path)
    contents = read_checkpoint(path)
    header = read_header(contents)
    names = header.modules
    model, _ = unwrap(model)
    report = patch(model, header.config, include=[_literally(name) for name in names])
    try:
        if sorted(_patched_names(model)) != sorted(names):
            raise CheckpointError(
                f"{path}: was saved from a model with {len(names)} patched attentions, this one is patched in: "
                f"{some_of(_patched_names(model))}."
            )
        check_fit(contents.tensors, model.state_dict() if header.whole else _new_state(model), path)
        copy_into(model, contents.tensors)
    except ExDAError:
        undo(model, report)
        raise


def _new_state(model: nn.Module) -> dict[str, Tensor]:
    """The new parameters under their names in the state dict, every one once."""
    state = model.state_dict()
    return {
        f"{name}.{key}": state[f"{name}.{key}"]
        for name, module in patched_attentions(model, aliases=False).items()
        for key in module.new_parameters()
    }


def _patched_names(model: nn.Module) -> list[str]:
    return list(patched_attentions(model, aliases=False))


def _literally(name: str) -> str:
    """A pattern that matches ``name`` alone."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def read_header(contents: Contents) -> Header:
    """What :func:`save` wrote beside the tensors.

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
        options: dict[str, Any] = json.loads(held["config"])
        modules = [str(name) for name in json.loads(held["modules"])]
        config = ExDAConfig(**options)
        # Before anything of that size is made.
        if config.tokens > sum(tensor.numel() for tensor in contents.tensors.values()) or config.stride > _LARGEST:
            raise ValueError(f"{config} is beyond what the file holds")
        return Header(config, modules, json.loads(held["whole"]) is True)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged ({type(error).__name__}: {error}).") from error


def host_weights(contents: Contents, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """``tensors`` without the parameters that ExDA added, where :func:`save` wrote the file.

    Raises:
        CheckpointError: if it wrote these parameters alone.
    """
    if not contents.is_ours:
        return tensors
    header = read_header(contents)
    if not header.whole:
        raise CheckpointError(
            f"{contents.path}: holds the parameters that ExDA added and no network. Make the network from its own "
            f"checkpoint, then exda.load(model, this file)."
        )
    added = tuple(f"{name}.{new}" for name in header.modules for new in NEW_NAMES)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in added and not name.startswith(tuple(f"{prefix}." for prefix in added))
    }
