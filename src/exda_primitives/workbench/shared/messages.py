"""Puts lists of problems into error messages."""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 10
"""Problems that a message lists; it only counts any further ones."""


def with_problems(head: str, problems: Sequence[str]) -> str:
    """Returns a message of several lines: ``head``, the first ten problems, and how many more there are."""
    more = [f"... and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
    return "\n  ".join([head, *problems[:_MOST], *more])
