"""Fingerprints of a host's weights: parameters that were trained on one host are of no use on another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

_COARSENESS = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
"""Order in which casts lose digits. (float16 cast to bfloat16 rounds twice; digests of that are never compared.)"""


def fingerprint(host: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Returns the fingerprint of a network's weights without those that ExDA added.

    Args:
        host: name -> weight.

    Returns:
        Name of a dtype -> digest of all names, shapes and values in that dtype: for the weights' own dtype (the
        coarsest if they have several) and for each coarser one, to which the weights may have been cast when they are
        loaded. None if a weight is on the meta device or is not a plain tensor.
    """
    if not host or any(type(each) is not Tensor or each.is_meta or each.is_quantized for each in host.values()):
        return None
    own = _coarsest(host)
    kinds = [kind for kind, coarseness in _COARSENESS.items() if coarseness >= _COARSENESS[own]]
    return {_name(kind): _digest(host, kind) for kind in kinds}


def check_host(held: Any, host: Mapping[str, Tensor], source: object) -> None:
    """Raises CheckpointError unless the weights ``host`` have the fingerprint ``held``.

    They are compared in the finest dtype that both fingerprints have, so in half precision if either side is in it.
    Without a fingerprint or without weights nothing is compared.
    """
    if held is None or not host or any(each.is_meta for each in host.values()):
        return
    ours = fingerprint(host)
    shared = [kind for kind in ours or () if kind in held]
    if ours is None or not shared or ours[shared[0]] != held[shared[0]]:
        raise CheckpointError(
            f"{source}: its parameters were trained on a host with other weights than this model's. Load the host's "
            f"checkpoint that they were trained on first; if the host was trained as well, or its BatchNorm's running "
            f"statistics have moved in train mode, save it with exda.save(model, file, whole=True). With any_host=True "
            f"they are loaded all the same."
        )


def _coarsest(host: Mapping[str, Tensor]) -> torch.dtype:
    kinds = {tensor.dtype for tensor in host.values() if tensor.dtype in _COARSENESS}
    return max(kinds, key=_COARSENESS.__getitem__, default=torch.float64)


def _digest(host: Mapping[str, Tensor], kind: torch.dtype) -> str:
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(host):
        tensor = host[name].detach()
        found.update(f"{name}\0{tuple(tensor.shape)}\0".encode())
        if tensor.dtype in _COARSENESS:
            # Rounded to ``kind``, then widened to float32: equal values have equal bytes, however they got their dtype.
            tensor = tensor.to(kind).to(torch.float64 if kind is torch.float64 else torch.float32)
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
