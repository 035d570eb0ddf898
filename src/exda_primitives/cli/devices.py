"""The option ``--device``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .names import known_names

if TYPE_CHECKING:
    import torch


DEVICES = ("auto", "cpu", "cuda")


def named_device(name: str) -> torch.device:
    """Returns the device for ``auto`` (CUDA if available), ``cpu`` or ``cuda``.

    Raises:
        BadParameter: for another name, or for ``cuda`` if there is no CUDA device.
    """
    import torch  # noqa: PLC0415

    known_names("--device", [name], DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("PyTorch finds no CUDA device; use cpu or auto", param_hint="--device")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
