"""Makes file names safe to print."""

from __future__ import annotations


def printable(name: object) -> str:
    r"""Returns a name or line with line breaks, terminal control characters and undecodable bytes escaped.

    Examples:
        >>> print(printable("two\nlines, \udcff"))
        two\nlines, \udcff
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(name)
    )
