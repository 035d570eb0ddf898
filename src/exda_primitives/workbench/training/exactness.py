"""Whether a run that was taken up again computes bit for bit what it would have computed without a break."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import torch

from ..shared.machine import machine
from .order import PairsByEpoch

_MATTERS = ("torch", "commit", "cpu", "threads", "gpu", "capability", "driver", "cuda", "triton", "numpy", "pillow")
_SAMPLES = 3


def circumstances(
    device: torch.device, processes: int, pairs: PairsByEpoch, images: str | None = None
) -> dict[str, Any]:
    """All beside the configuration that decides on the numbers, plain data.

    Args:
        device: on which they are computed.
        processes: that train together.
        pairs: to train on.
        images: stamp of all that they are made of, see ``exda_primitives.workbench.data.check``; None: not
            known.
    """
    about = machine(device) | {package: version(package) for package in ("numpy", "pillow")}
    # A subclass of str is not read back as plain data.
    about = {name: str(each) if isinstance(each, str) else each for name, each in about.items()}
    return {"machine": about, "processes": processes, "data": fingerprint(pairs), "pictures": images}


def fingerprint(pairs: PairsByEpoch) -> str:
    """Of a few of the pairs and their number: other images, or other degradations, give another."""
    pairs.set_epoch(0)
    found = sha256(str(len(pairs)).encode())
    for index in range(0, len(pairs), max(len(pairs) // _SAMPLES, 1)):
        degraded, clean, *_ = pairs[index]
        for part in (degraded, clean):
            found.update(part.numpy().tobytes())
    return found.hexdigest()


def resume_mismatches(held: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different from before, a line each; none where the run goes on bit for bit."""
    reasons = [
        f"{name} was {then!r}, is {is_now!r}"
        for name in _MATTERS
        if (then := held["machine"].get(name)) != (is_now := now["machine"].get(name))
    ]
    if held["processes"] != now["processes"]:
        reasons.append(
            f"{held['processes']} processes were together, now {now['processes']}: other batches, and as many epochs "
            f"in other steps"
        )
    if held["data"] != now["data"] or not same_images(held, now):
        reasons.append("the images, or what is done to them, are not what they were")
    return [*reasons, *held.get("indeterminate", [])]


def same_images(held: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether all images are those of before; where not all were looked at, whether the few are that were."""
    stamps = held.get("pictures"), now["pictures"]
    return held["data"] == now["data"] if None in stamps else stamps[0] == stamps[1]


@contextmanager
def deterministic(device: torch.device) -> Iterator[list[str]]:
    """Deterministic operations on a CUDA device; on the CPU they are so anyway.

    Yields:
        A list to which those operations are added that have no deterministic form, as they are met.
    """
    met: list[str] = []
    if device.type != "cuda":
        yield met
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        show = warnings.showwarning
        warnings.filterwarnings("always", message=".*does not have a deterministic")

        def noted(message: Warning | str, *details: Any, **more: Any) -> None:
            name = str(message).partition(" does not have a deterministic implementation")
            if not name[1]:
                show(message, *details, **more)
            elif (reason := f"{name[0]} has no deterministic form on CUDA") not in met:
                met.append(reason)

        warnings.showwarning = noted
        try:
            yield met
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def prepare_cublas() -> None:
    """Without this, which must be set before CUDA starts, cuBLAS has no deterministic form."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
