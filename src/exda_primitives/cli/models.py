"""``exda models``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import typer


def models(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern of names, such as '*denoising*'.")] = "*",
) -> None:
    """List the published checkpoints, and which are in the folder EXDA_HOME; of a single one, where to find it.

    Nothing is downloaded. A file that you save in that folder under a name of this list, or under any other, is found
    by --checkpoint NAME of every command; its SHA-256 is compared where the folder's file SHA256SUMS has one.
    """
    from ..models.home import home, present  # noqa: PLC0415
    from ..models.published import PUBLISHED  # noqa: PLC0415

    chosen = [each for name, each in PUBLISHED.items() if fnmatchcase(name, pattern)]
    if not chosen:
        raise typer.BadParameter(f"no published checkpoint is called {pattern!r}", param_hint="PATTERN")
    for each in chosen:
        typer.echo(f"{each.name}{' (here)' if present(each.name) else ''}")
        size = f"{each.parameters / 1e6:.2f} M parameters"
        typer.echo(f"    {each.task}; {each.network}, {size}; {each.file}; licence: {each.licence}")
    if len(chosen) == 1:
        (only,) = chosen
        arguments = ", ".join(f"{name}={value!r}" for name, value in only.arguments.items())
        for title, value in {
            "where": only.where,
            "network": f"{only.network}({arguments})",
            "SHA-256": only.sha256 or "not stated",
            "exda restore": "yes" if only.images else "no: its input is not one image of one or three channels",
        }.items():
            typer.echo(f"{title}: {value}")
    typer.echo(f"\nThe folder is {home()}; the environment variable EXDA_HOME names another.")
