"""Python files that a command is given, and runs."""

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
        help="Python file that makes more known by exda.register_adapter; it is run. As often as needed.",
        show_default=False,
    ),
]
"""The option of every command that makes a network of a checkpoint."""


def run_adapters(files: Sequence[Path] | None) -> None:
    """Runs the files of ``--adapter``.

    Raises:
        ConfigError: for one that is not there, or fails: with the line.
    """
    for file in files or ():
        run(file)


def run(file: Path) -> dict[str, Any]:
    """Runs a file as ``python FILE.py`` does, but for its ``__name__``, and gives what it defines.

    Raises:
        ConfigError: for one that is not there, or fails: with the line.
    """
    from ..errors import ConfigError  # noqa: PLC0415

    if not file.is_file():
        raise ConfigError(f"{file} {'is no regular file' if file.exists() else 'does not exist'}")
    # The file's own folder first, so that it finds what stands beside it.
    sys.path.insert(0, str(file.parent.resolve()))
    with failing_by_line(file):
        return run_path(str(file))


@contextmanager
def failing_by_line(file: Path) -> Iterator[None]:
    """Makes of whatever a file's code raises in the block an error that names the line in it.

    Raises:
        ConfigError: of one line, or of those that an error of the library's own has.
    """
    from ..errors import ConfigError, ExDAError  # noqa: PLC0415

    try:
        yield
    # A script that ends itself would end the command without a word.
    except (Exception, SystemExit) as error:
        line = _line_in(file, error)
        said = str(error) if isinstance(error, ExDAError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{file}{f', line {line}' if line else ''}: {said}") from error


def _line_in(file: Path, error: BaseException) -> int | None:
    """The innermost line of the file at which the error arose."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(file)]
    return lines[-1] if lines else None


def given_network(argument: str, given: str, reading: Reading, name: str = "auto") -> nn.Module:
    """The network of ``FILE.py:Class``, or of a checkpoint.

    Args:
        argument: of the command, for its errors.
        given: what was typed.
        reading: of a checkpoint.
        name: of the network that a checkpoint is of.

    Raises:
        BadParameter: for what is no network in a Python file.
        ConfigError: for a Python file that fails.
        CheckpointError: for a file that is of no network that is known.
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
