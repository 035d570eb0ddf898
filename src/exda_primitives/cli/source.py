"""Runs the Python files that a command is given: adapters, and networks as ``FILE.py:Class``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from runpy import run_path
from traceback import walk_tb
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .networks import Reading, checkpoint_file, network_of

if TYPE_CHECKING:
    from torch import nn

Adapters = Annotated[
    list[Path] | None,
    typer.Option(
        "--adapter",
        help="Python file to run, which calls exda.register_adapter. May be given several times.",
        show_default=False,
    ),
]
"""The option ``--adapter``, of every command that builds a network from a checkpoint."""


def run_adapters(files: Sequence[Path] | None) -> None:
    """Runs the files of ``--adapter``.

    Raises:
        ConfigError: for a file that does not exist, or raises; the message names the line.
    """
    for file in files or ():
        run(file)


def run(file: Path) -> dict[str, Any]:
    """Runs a file as ``python FILE.py`` does, but with another ``__name__``, and returns its globals.

    Raises:
        ConfigError: for a file that does not exist, or raises; the message names the line.
    """
    from ..errors import ConfigError  # noqa: PLC0415

    if not file.is_file():
        raise ConfigError(f"{file} {'is no regular file' if file.exists() else 'does not exist'}")
    # As python does: the file can import modules from its own folder.
    sys.path.insert(0, str(file.parent.resolve()))
    with failing_by_line(file):
        return run_path(str(file))


@contextmanager
def failing_by_line(file: Path) -> Iterator[None]:
    """Converts whatever the file's code raises in the block into an error that names the line of the file.

    Raises:
        ConfigError: with the type and message of the error, or the message alone if it is an ``ExDAError``.
    """
    from ..errors import ConfigError, ExDAError  # noqa: PLC0415

    try:
        yield
    # SystemExit, too: a script that calls sys.exit() would end the command silently.
    except (Exception, SystemExit) as error:
        line = _line_in(file, error)
        reason = str(error) if isinstance(error, ExDAError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file}{f', line {line}' if line else ''}: {reason}") from error


def _line_in(file: Path, error: BaseException) -> int | None:
    """Returns the innermost line of the file in the traceback, or None."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(file)]
    return lines[-1] if lines else None


def given_network(argument: str, given: str, reading: Reading, name: str = "auto") -> nn.Module:
    """Builds the network that ``FILE.py:Class`` or a checkpoint stands for.

    Args:
        argument: name of the command's argument, for error messages.
        given: what the user typed for it.
        reading: how to read a checkpoint.
        name: the checkpoint's network, or "auto".

    Raises:
        BadParameter: if the name in the Python file is no network, or needs arguments.
        ConfigError: for a Python file that raises.
        CheckpointError: for a checkpoint of no known network.
    """
    file, colon, held = given.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_source(argument, Path(file), held)
    return network_of(checkpoint_file(given), reading, name)


def _from_source(argument: str, path: Path, name: str) -> nn.Module:
    from torch import nn  # noqa: PLC0415

    held = run(path)
    make = held.get(name)
    if not callable(make):
        known = [key for key, each in held.items() if isinstance(each, type) and issubclass(each, nn.Module)]
        raise typer.BadParameter(
            f"{path} has no {name!r}; its networks are {', '.join(known) or 'none'}", param_hint=argument
        )
    try:
        signature(make).bind()
    except TypeError as error:
        raise typer.BadParameter(
            f"{name} cannot be called without arguments ({error}); write a function that returns the network and name "
            f"that",
            param_hint=argument,
        ) from None
    with failing_by_line(path):
        network = make()
    if not isinstance(network, nn.Module):
        raise typer.BadParameter(f"{name}() is a {type(network).__name__}, no torch.nn.Module", param_hint=argument)
    return network
