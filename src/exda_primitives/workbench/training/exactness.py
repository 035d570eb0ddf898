"""Tells whether a resumed run computes bit for bit what it would have computed without the interruption."""

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
"""Entries of the machine's description that can change results."""
_SAMPLES = 3
"""Least number of pairs that ``fingerprint`` hashes; of a smaller set, all."""


def circumstances(
    device: torch.device, processes: int, pairs: PairsByEpoch, images: str | None = None
) -> dict[str, Any]:
    """Returns everything besides the configuration that affects results, as plain data.

    Args:
        device: device that computes them.
        processes: number of processes that train together.
        pairs: pairs to train on.
        images: stamp of all images, see ``exda_primitives.workbench.data.check``; None if unknown.
    """
    about = machine(device) | {package: version(package) for package in ("numpy", "pillow")}
    # torch.__version__ is a subclass of str, which is not read back from a checkpoint as plain data.
    about = {name: str(each) if isinstance(each, str) else each for name, each in about.items()}
    return {"machine": about, "processes": processes, "data": fingerprint(pairs), "pictures": images}


def fingerprint(pairs: PairsByEpoch) -> str:
    """Returns the SHA-256 of the data set's length and a few of its pairs; changed images or degradations change it."""
    pairs.set_epoch(0)
    found = sha256(str(len(pairs)).encode())
    for index in range(0, len(pairs), max(len(pairs) // _SAMPLES, 1)):
        degraded, clean, *_ = pairs[index]
        for part in (degraded, clean):
            found.update(part.numpy().tobytes())
    return found.hexdigest()


def resume_mismatches(held: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line for each difference that changes results; none if the run goes on bit for bit.

    Args:
        held: ``circumstances`` before the interruption.
        now: ``circumstances`` of the resumed run.
    """
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
    """Returns whether the images are those of before: by the stamp of all of them, or else by the few hashed pairs."""
    stamps = held.get("pictures"), now["pictures"]
    return held["data"] == now["data"] if None in stamps else stamps[0] == stamps[1]


@contextmanager
def deterministic(device: torch.device) -> Iterator[list[str]]:
    """Makes PyTorch use deterministic operations on a CUDA device; on the CPU they are deterministic anyway.

    Yields:
        A list that collects a sentence for each operation without a deterministic form that is met.
    """
    met: list[str] = []
    if device.type != "cuda":
        yield met
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # warn_only: an operation without a deterministic form is reported rather than ending the run. PyTorch tells of it
    # only by a warning, which is caught here by its text.
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
    """Sets the environment variable that cuBLAS needs to be deterministic; must be called before CUDA starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
