"""Names of files in what is printed."""

from __future__ import annotations


def printable(name: object) -> str:
    r"""A name, or a line, as text that stays in its line: what ends it, steers a terminal or is no text is escaped.

    Example:
        >>> print(printable("two\nlines, \udcff"))
        two\nlines, \udcff
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(name)
    )
