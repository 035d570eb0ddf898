"""Reads the weights of a checkpoint of any trainer, and how they were wrapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, some_of
from ..primitives.base import DESCRIPTION
from .io import looks_like_safetensors, read_pickle, read_safetensors
from .split import is_extra_state, undescribed

FORMAT = "exda_primitives"
# Entries under which trainers put the weights, the likeliest first: BasicSR and timm (averaged and not), Lightning, and
# what people write by hand.
WRAPPINGS = (
    "params_ema",
    "params",
    "state_dict_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "generator",
)
# Prefixes that wrappers add to every name: Lightning modules, DataParallel and DDP, torch.compile, and attributes by
# which people hold a network in another module.
PREFIXES = ("net.", "module.", "_orig_mod.", "model.", "generator.")
# Pairs of entries: the trained weights, and their moving average.
_AVERAGES = (("params", "params_ema"), ("state_dict", "state_dict_ema"))

Patterns = str | Sequence[str] | None
Versions = Mapping[str, Mapping[str, Any]]
"""Name of a module -> what PyTorch records of it in a state dict: the version of its part."""


@dataclass(frozen=True)
class Contents:
    """The weights of a file.

    Attributes:
        path: the file.
        tensors: name -> tensor, on the CPU, finite and dense.
        wrapping: the entry that held them; None for a bare state dict and for safetensors.
        metadata: header of a safetensors file; empty for other files.
        versions: versions of the modules; None if the file does not hold them.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    wrapping: str | None
    metadata: Mapping[str, str]
    versions: Versions | None = None

    @classmethod
    def checked(
        cls,
        path: Path,
        tensors: Mapping[str, Tensor],
        wrapping: str | None,
        metadata: Mapping[str, str],
        versions: Versions | None = None,
    ) -> Contents:
        """Returns the contents after a check of every tensor.

        Raises:
            CheckpointError: for a tensor that is sparse, quantised, not on the CPU, incomplete, or not finite.
        """
        for name, tensor in tensors.items():
            if problem := _problem(tensor):
                raise CheckpointError(f"{path}: {name} {problem}.")
        return cls(path, tensors, wrapping, metadata, versions)

    @property
    def is_ours(self) -> bool:
        """Whether ``exda_primitives.save`` wrote it."""
        return self.metadata.get("format") == FORMAT

    def unprefixed(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """Yields the prefix removed and the weights under the remaining names; the file's own names come first.

        Each step removes one more prefix that all names share. A Lightning module may hold more than the network (a
        loss network, metrics): if only some names begin with ``net.``, the others are dropped.
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

    def versions_below(self, prefix: str) -> Versions | None:
        """Returns the versions of the modules whose names begin with ``prefix``, by the remaining names."""
        if self.versions is None:
            return None
        below = {f"{name}." if name else "": each for name, each in self.versions.items()}
        return {
            name.removeprefix(prefix).removesuffix("."): each for name, each in below.items() if name.startswith(prefix)
        }

    def without(self, ignore: Patterns) -> Contents:
        """Returns the contents without weights whose name, or a leading part of it, matches one of the patterns.

        Raises:
            CheckpointError: for a pattern that matches nothing.
        """
        patterns = [ignore] if isinstance(ignore, str) else list(ignore or ())
        left_out: set[str] = set()
        for pattern in patterns:
            hits = {name for name in self.tensors if _matches(name, pattern)}
            if not hits:
                raise CheckpointError(
                    f"{self.path}: ignore={pattern!r} matches none of its names; they begin with "
                    f"{some_of(sorted({name.split('.')[0] for name in self.tensors}))}."
                )
            left_out |= hits
        return replace(self, tensors={name: each for name, each in self.tensors.items() if name not in left_out})


def read_checkpoint(path: Path, param_key: str | None = None) -> Contents:
    """Reads the weights of a file, without running code from it.

    Args:
        path: a safetensors file under any name, or anything that ``torch.save`` wrote.
        param_key: the entry that holds the weights, for a file with several; by default the likeliest.

    Raises:
        CheckpointError: if the file is missing or damaged; if it holds more than tensors and plain containers, or
            tensors that no network has (sparse, quantized, on the meta device, or not finite); if it has no entry
            ``param_key``; and, without ``param_key``, if either the weights or their moving average are patched, but
            not both.
    """
    if path.suffix.lower() == ".safetensors" or looks_like_safetensors(path):
        tensors, metadata = read_safetensors(path)
        wrapping, versions = None, None
        if param_key is not None:
            raise CheckpointError(f"{path}: a safetensors file has no entries; param_key={param_key!r} is of no use.")
    else:
        metadata = {}
        wrapping, held = _unwrapped(read_pickle(path), path, param_key)
        tensors, versions = dict(held), _versions(held)
    return Contents.checked(path, tensors, wrapping, metadata, versions)


def _unwrapped(held: Any, path: Path, param_key: str | None) -> tuple[str | None, Mapping[str, Tensor]]:
    entries = [key for key in held if isinstance(held[key], Mapping)] if isinstance(held, Mapping) else []
    if param_key is not None and param_key not in entries:
        named = some_of([str(key) for key in entries]) or "none"
        raise CheckpointError(f"{path}: has no entry param_key={param_key!r} with weights; its entries are {named}.")
    wrapping = param_key or next((key for key in WRAPPINGS if key in entries), None)
    if wrapping is not None:
        if param_key is None:
            _check_average(held, wrapping, path)
        held = held[wrapping]
    if not isinstance(held, Mapping) or not held:
        raise CheckpointError(f"{path}: holds {type(held).__name__}, expected a state dict.")
    strange = [name for name, value in held.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange and all(isinstance(name, str) and is_extra_state(name) for name in strange):
        raise CheckpointError(
            f"{path}: {strange[0]} is a {type(held[strange[0]]).__name__}; of the extra states of modules only tensors "
            f"are read. Load the file by PyTorch: model.load_state_dict(torch.load(...))."
        )
    if strange:
        raise CheckpointError(
            f"{path}: holds no state dict, neither bare nor under {', '.join(WRAPPINGS)}: {strange[0]!r} is a "
            f"{type(held[strange[0]]).__name__}; its entries are {some_of([str(name) for name in held])}."
        )
    return wrapping, held


def _versions(held: Mapping[str, Tensor]) -> Versions | None:
    found = getattr(held, "_metadata", None)
    if not isinstance(found, Mapping):
        return None
    # ``load_state_dict(assign=True)`` leaves its order to assign in the state dict that it was given.
    return {
        name: {key: value for key, value in each.items() if key != "assign_to_params_buffers"}
        for name, each in found.items()
        if isinstance(name, str) and isinstance(each, Mapping)
    }


def _check_average(held: Mapping[Any, Any], taken: str, path: Path) -> None:
    """Refuses a file in which only one of the trainer's two networks, trained and averaged, is patched.

    Then ``exda.patch`` was called on only one of them, and nothing says which of the two is meant.
    """
    for pair in _AVERAGES:
        if taken not in pair or not all(isinstance(held.get(key), Mapping) and held[key] for key in pair):
            continue
        patched = [key for key in pair if _is_patched(held[key])]
        if len(patched) == 1:
            (other,) = {*pair} - {*patched}
            raise CheckpointError(
                f"{path}: {patched[0]!r} is of a patched network and {other!r} is not: when it was trained, one of the "
                f"two networks of the trainer was left unpatched. Say which to take with param_key={patched[0]!r} or "
                f"param_key={other!r}; to train on, patch where the network is built, so that both are."
            )


def _is_patched(state: Mapping[Any, Any]) -> bool:
    keys = {str(key): tensor for key, tensor in state.items()}
    return any(key.endswith(DESCRIPTION) for key in keys) or bool(undescribed(keys))


def _matches(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


def _problem(tensor: Tensor) -> str | None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return f"is no dense tensor ({tensor.layout}, {tensor.dtype}, on {tensor.device})"
    # A tensor that was expanded claims more numbers than its storage in the file holds.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"has shape {tuple(tensor.shape)}, for which the file holds too few numbers"
    if tensor.is_floating_point() and not tensor.isfinite().all():
        return "holds NaN or infinite numbers: the file is damaged, or its training diverged"
    return None
