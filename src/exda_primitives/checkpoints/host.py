"""What tells one host from another: a patch that was trained on one is of no use on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

_COARSENESS = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
"""The order in which casting loses digits. A cast from float16 to bfloat16 rounds twice, which nothing compares."""


def fingerprint(host: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Of the weights of a network without what ExDA added, by name; None where they are not all plain and there.

    Returns:
        dtype -> digest of all names, shapes and values, in that dtype: the weights' own (the coarsest of several), and
        each in which the same weights may be met again.
    """
    if not host or any(type(each) is not Tensor or each.is_meta or each.is_quantized for each in host.values()):
        return None
    own = _coarsest(host)
    kinds = [kind for kind, coarseness in _COARSENESS.items() if coarseness >= _COARSENESS[own]]
    return {_name(kind): _digest(host, kind) for kind in kinds}


def check_host(held: Any, host: Mapping[str, Tensor], source: object) -> None:
    """Raises CheckpointError unless ``host`` are the weights of which ``held`` is the fingerprint.

    Of weights that were saved or are loaded in a half type, what is compared is what that type can hold.
    """
    if held is None or not host or any(each.is_meta for each in host.values()):
        return
    ours = fingerprint(host)
    shared = [kind for kind in ours or () if kind in held]
    if ours is None or not shared or ours[shared[0]] != held[shared[0]]:
        raise CheckpointError(
            f"{source}: its parameters were trained on a host with other weights than this model's. Load the host's "
            f"checkpoint that they were trained on first; if the host was trained as well, save it with "
            f"exda.save(model, file, whole=True). With any_host=True they are loaded all the same."
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
            # Through float32: so a value has the same bytes whichever way it came to this precision.
            tensor = tensor.to(kind).to(torch.float64 if kind is torch.float64 else torch.float32)
        found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
