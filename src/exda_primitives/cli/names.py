"""Makes file names safe to print, and checks names that options take."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

import typer

Name = TypeVar("Name", bound=str)


def printable(name: object) -> str:
    r"""Returns a name or line with line breaks, terminal control characters and undecodable bytes escaped.

    Examples:
        >>> print(printable("two\nlines, \udcff"))
        two\nlines, \udcff
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(name)
    )


def known_names(option: str, given: Collection[str], known: Iterable[Name]) -> list[Name]:
    """Returns the names given to an option, each once, in the order of ``known``.

    Raises:
        BadParameter: one of them is not in ``known``.
    """
    known = list(known)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(known)}", param_hint=option)
    return [name for name in known if name in given]
