"""What a checkpoint of any trainer holds: the weights, and how they were wrapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, some_of
from .safe import looks_like_safetensors, read_pickle, read_safetensors

FORMAT = "exda_primitives"
# Where trainers put the weights, the likelier first: BasicSR (with and without averaging), Lightning.
WRAPPINGS = ("params_ema", "params", "state_dict")
# What wrappers put before every name: Lightning modules, DataParallel and DDP, torch.compile.
PREFIXES = ("net.", "module.", "_orig_mod.")


@dataclass(frozen=True)
class Contents:
    """The weights of a file.

    Attributes:
        path: the file.
        tensors: by name, on the CPU, finite and dense.
        wrapping: the entry that they were under, None for a bare state dict and for safetensors.
        metadata: of a safetensors file.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    wrapping: str | None
    metadata: Mapping[str, str]

    @property
    def is_ours(self) -> bool:
        """Whether :func:`exda_primitives.save` wrote it."""
        return self.metadata.get("format") == FORMAT

    def unprefixed(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The prefix that may be a wrapper's, and the weights without it; the file's own names first.

        A Lightning module may hold more than the network (a loss network, metrics): what stands beside ``net.`` is not
        part of the network.
        """
        prefix, tensors = "", self.tensors
        while True:
            yield prefix, tensors
            common = next((p for p in PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None)
            if common is None and prefix == "" and self.wrapping == "state_dict":
                common = next((p for p in PREFIXES[:1] if any(name.startswith(p) for name in tensors)), None)
            if common is None:
                return
            prefix += common
            tensors = {n.removeprefix(common): tensor for n, tensor in tensors.items() if n.startswith(common)}


def read_checkpoint(path: Path) -> Contents:
    """Reads the weights of a file, without running code from it.

    Args:
        path: a safetensors file under any name, or anything that ``torch.save`` wrote.

    Raises:
        CheckpointError: for a file that is missing, damaged, holds more than tensors and plain containers, or holds
            tensors that no network has (sparse, quantized, on the meta device, or not finite).
    """
    if path.suffix.lower() == ".safetensors" or looks_like_safetensors(path):
        tensors, metadata = read_safetensors(path)
        wrapping = None
    else:
        metadata = {}
        wrapping, tensors = _unwrapped(read_pickle(path), path)
    for name, tensor in tensors.items():
        if problem := _problem(tensor):
            raise CheckpointError(f"{path}: {name} {problem}.")
    return Contents(path, tensors, wrapping, metadata)


def _unwrapped(held: Any, path: Path) -> tuple[str | None, dict[str, Tensor]]:
    wrapping = None
    if isinstance(held, Mapping):
        wrapping = next((key for key in WRAPPINGS if isinstance(held.get(key), Mapping)), None)
    if wrapping is not None:
        held = held[wrapping]
    if not isinstance(held, Mapping) or not held:
        raise CheckpointError(f"{path}: holds {type(held).__name__}, expected a state dict.")
    strange = [name for name, value in held.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange:
        raise CheckpointError(
            f"{path}: holds no state dict, neither bare nor under {', '.join(WRAPPINGS)}: {strange[0]!r} is a "
            f"{type(held[strange[0]]).__name__}; its entries are {some_of([str(name) for name in held])}."
        )
    return wrapping, dict(held)


def _problem(tensor: Tensor) -> str | None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return f"is no dense tensor ({tensor.layout}, {tensor.dtype}, on {tensor.device})"
    # An expanded tensor claims a size that the file does not hold.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has shape {tuple(tensor.shape)}, for which the file holds too few numbers"
    if tensor.is_floating_point() and not tensor.isfinite().all():
        return "holds NaN or infinite numbers: the file is damaged, or its training diverged"
    return None
