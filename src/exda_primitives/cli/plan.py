"""``exda plan``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from .networks import HELP, Ignore, ParamKey, PatchedWith, Reading
from .source import Adapters, given_network, run_adapters


def plan(
    model: Annotated[
        str,
        typer.Argument(
            help=f"FILE.py:Class, a network class (or function) called without arguments; or a checkpoint: {HELP}."
        ),
    ],
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Say which attentions of a model would be patched, which only look alike and why, and what patching costs."""
    from ..patching import plan as plan_model  # noqa: PLC0415

    run_adapters(adapter)
    report = plan_model(given_network("MODEL", model, Reading(param_key, ignore, patched_with)))
    report.print(Console())
    if not report.matches and not report.present:
        raise typer.Exit(1)
