"""The file of an adaptation: ExDA's parameters, LoRA's matrices, or both, with a fingerprint of the host.

Without LoRA it is a file of ``exda_primitives.save``. With LoRA its metadata name another format, and each adapted
layer has two more entries, ``LAYER.lora_A`` and ``LAYER.lora_B``. PEFT is not needed to load it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ... import checkpoints
from ...checkpoints.contents import FORMAT as EXDA_FORMAT
from ...checkpoints.contents import read_checkpoint
from ...checkpoints.exda_file import added_tensors, load_contents, load_file, metadata_of, read_header
from ...checkpoints.io import write_safetensors
from ...checkpoints.network import attentions_of, inside, parts_of, state_of
from ...checkpoints.split import split_state_dict
from ...errors import CheckpointError, some_of
from ...surgery.wrappers import canonical
from ..training.lora import lora_parameters, without_lora
from ..training.lora_layers import inexact, tied

FORMAT = "exda_primitives.adaptation"
_A, _B = ".lora_A", ".lora_B"


class _Factors(NamedTuple):
    """The two matrices of a layer: ``a`` (rank, in, ...) and ``b`` (out, rank, ...), as PEFT holds them."""

    a: Tensor
    b: Tensor

    def product(self, weight: Tensor) -> Tensor:
        """Returns B A in the shape of the layer's weight (out, in, ...)."""
        return (self.b.flatten(1) @ self.a.flatten(1)).reshape(weight.shape)

    def fits(self, weight: Tensor) -> bool:
        """Returns whether the product has as many rows and columns as the layer's weight."""
        rank = self.a.shape[0]
        return self.b.flatten(1).shape == (weight.shape[0], rank) and self.a.shape[1:] == weight.shape[1:]


def save(net: nn.Module, path: str | PathLike[str]) -> None:
    """Writes what was added to a host whose own weights did not change.

    Args:
        net: a network with ExDA attentions, with PEFT's LoRA as ``exda train`` adds it, or with both.
        path: the file; an existing one is replaced whole or not at all.

    Raises:
        NotPatchedError: for a network with neither.
        CheckpointError: for LoRA of which the file would compute otherwise (scaled, DoRA, beside tied weights, ...).
        OSError: if the file cannot be written.
    """
    lora = lora_parameters(net)
    bare = without_lora(net, merge=False)
    if not lora:
        checkpoints.save(bare, path)
        return
    if others := list(inexact(net)):
        raise CheckpointError(
            f"{path}: would compute otherwise than the network, so that nothing was written. {some_of(others)}. Save "
            f"the state dict as it is by torch.save, for a network with the same LoRA."
        )
    state, attentions = state_of(bare), attentions_of(bare)
    tensors = added_tensors(state, attentions)
    for name, parameter in lora.items():
        # PEFT: LAYER.lora_A.ADAPTER.weight
        layer, _, factor = name.rsplit(".", 2)[0].rpartition(".")
        tensors[f"{layer}.{factor}"] = parameter.detach()
    metadata = metadata_of(attentions, parts_of(bare, state).host) | {"format": FORMAT}
    write_safetensors(tensors, metadata, Path(path))


def load(model: nn.Module, path: str | PathLike[str], *, any_host: bool = False) -> None:
    """Loads a file of ``exda adapt``, or of ``exda_primitives.save``, into the host that it was trained on.

    Attentions are patched as the file says. LoRA is merged into the weights of its layers: ``unpatch`` does not take it
    out again; for the host as it was, load its checkpoint.

    Args:
        model: the host, with its weights; it may be wrapped as for ``exda_primitives.load``.
        path: the file.
        any_host: also load parameters that were trained on a host with other weights.

    Raises:
        CheckpointError: for a file that is damaged, of another kind, or does not fit, and for a host with other
            weights. On this and any other error the model is unchanged.
        AlreadyPatchedError, NoMatchError, PatternError, WrappedModelError: as for ``exda_primitives.load``.
    """
    path = Path(path)
    contents = read_checkpoint(path)
    if contents.metadata.get("format") != FORMAT:
        load_contents(model, contents, any_host)
        return
    model = inside(model, "load")
    exda = {name: tensor for name, tensor in contents.tensors.items() if not name.endswith((_A, _B))}
    header = read_header(replace(contents, metadata={**contents.metadata, "format": EXDA_FORMAT}))
    held = split_state_dict(exda, path, known=header.attentions)
    weights = {name.removesuffix(".weight"): tensor for name, tensor in state_of(model).items()}
    factors = _factors({name: each for name, each in contents.tensors.items() if name not in exda}, weights, path)
    _refuse_tied(model, factors, path)
    # Computed before anything changes, since too little memory is an error, too.
    with torch.no_grad():
        merged = {
            f"{layer}.weight": weights[layer] + each.product(weights[layer]).to(weights[layer])
            for layer, each in factors.items()
        }
    load_file(model, header, held, path, any_host, changed=merged)


def _factors(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> dict[str, _Factors]:
    """Returns each layer's matrices.

    Raises:
        CheckpointError: if one of the two is missing, or the model has no such layer.
    """
    found = {}
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in tensors):
        if layer + _A not in tensors or layer + _B not in tensors:
            raise CheckpointError(f"{path}: {layer} lacks one of LoRA's two matrices; the file is damaged.")
        factors = _Factors(tensors[layer + _A], tensors[layer + _B])
        if layer not in weights:
            raise CheckpointError(f"{path}: does not fit the model, which has no layer {layer}.")
        if weights[layer].is_meta:
            raise CheckpointError(f"{path}: LoRA changes weights, and {layer} has none yet: load the host's first.")
        if not factors.fits(weights[layer]):
            raise CheckpointError(
                f"{path}: LoRA of {layer} has matrices of shapes {tuple(factors.b.shape)} and "
                f"{tuple(factors.a.shape)}, which do not fit its weight of shape {tuple(weights[layer].shape)}."
            )
        found[layer] = factors
    return found


def _refuse_tied(model: nn.Module, layers: Iterable[str], path: Path) -> None:
    """Checks that LoRA of a layer changes no other one's weight."""
    others = {canonical(name): other for name, other in tied(model).items()}
    for layer in layers:
        if (other := others.get(f"{layer}.weight")) is not None:
            raise CheckpointError(f"{path}: LoRA of {layer} cannot be merged, as its weight is also {other}.")
