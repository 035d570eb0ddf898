"""``exda plan``."""

from __future__ import annotations

import sys
from inspect import signature
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .errors import plainly

if TYPE_CHECKING:
    from torch import nn


def plan(
    model: Annotated[
        str, typer.Argument(help="A checkpoint, or FILE.py:Class: a network class (or function) without arguments.")
    ],
) -> None:
    """Say which attentions of a model would be patched, what only looks like one and why, and what it costs."""
    from ..models import create  # noqa: PLC0415
    from ..patching import plan as plan_model  # noqa: PLC0415
    from ..patching.table import print_report  # noqa: PLC0415

    file, colon, name = model.rpartition(":")
    with plainly():
        network = _from_source(Path(file), name) if colon and file.endswith(".py") else create(checkpoint=model)
        report = plan_model(network)
    print_report(report, Console())
    if not report.matches and not report.present:
        raise typer.Exit(1)


def _from_source(path: Path, name: str) -> nn.Module:
    from torch import nn  # noqa: PLC0415

    if not path.is_file():
        raise typer.BadParameter(f"there is no file {str(path)!r}", param_hint="MODEL")
    # As `python FILE.py` does: the file's own folder first, so that it finds what stands beside it.
    sys.path.insert(0, str(path.parent.resolve()))
    held = run_path(str(path))
    make = held.get(name)
    if not callable(make):
        known = [key for key, each in held.items() if isinstance(each, type) and issubclass(each, nn.Module)]
        raise typer.BadParameter(
            f"{path} has no {name!r}; its networks are {', '.join(known) or 'none'}", param_hint="MODEL"
        )
    try:
        signature(make).bind()
    except TypeError as error:
        raise typer.BadParameter(
            f"{name} cannot be called without arguments ({error}); write a function that returns the network and name "
            f"that",
            param_hint="MODEL",
        ) from None
    network = make()
    if not isinstance(network, nn.Module):
        raise typer.BadParameter(f"{name}() is a {type(network).__name__}, no torch.nn.Module", param_hint="MODEL")
    return network
