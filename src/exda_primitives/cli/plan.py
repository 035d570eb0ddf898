"""``exda plan``."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .networks import HELP, checkpoint_file
from .source import Adapters, failing_by_line, run, run_adapters

if TYPE_CHECKING:
    from torch import nn


def plan(
    model: Annotated[
        str,
        typer.Argument(
            help=f"FILE.py:Class, a network class (or function) without arguments; or a checkpoint: {HELP}."
        ),
    ],
    adapter: Adapters = None,
) -> None:
    """Say which attentions of a model would be patched, what only looks like one and why, and what it costs."""
    from ..models import create  # noqa: PLC0415
    from ..patching import plan as plan_model  # noqa: PLC0415
    from ..patching.table import print_report  # noqa: PLC0415

    run_adapters(adapter)
    file, colon, name = model.rpartition(":")
    from_source = bool(colon) and file.endswith(".py")
    network = _from_source(Path(file), name) if from_source else create(checkpoint=checkpoint_file(model))
    report = plan_model(network)
    print_report(report, Console())
    if not report.matches and not report.present:
        raise typer.Exit(1)


def _from_source(path: Path, name: str) -> nn.Module:
    from torch import nn  # noqa: PLC0415

    held = run(path)
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
    with failing_by_line(path):
        network = make()
    if not isinstance(network, nn.Module):
        raise typer.BadParameter(f"{name}() is a {type(network).__name__}, no torch.nn.Module", param_hint="MODEL")
    return network
