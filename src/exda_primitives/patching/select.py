"""Selects attentions by the patterns of ``include`` and ``exclude``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..errors import PatternError, some_of
from .adapter import Family

Patterns = str | Sequence[str] | None


def select(
    attentions: Mapping[tuple[str, ...], str | None], include: Patterns, exclude: Patterns, kind: str = "recognised"
) -> set[tuple[str, ...]]:
    """Returns the attentions that ``include`` (all, if None) selects and ``exclude`` does not.

    A pattern selects an attention if it equals the stage, or matches the name or any leading part of the name:
    ``"decoder"``, ``"decoder_level1"``, ``"decoder_level[12].*.attn"``, ``"*.0.attn"``.

    Args:
        attentions: all names of each attention (several if it is shared) -> its stage, None if unknown.
        include: pattern or patterns.
        exclude: pattern or patterns; wins over ``include``.
        kind: what the attentions are ("recognised", "patched"), for the error.

    Raises:
        PatternError: for a pattern that selects nothing; the message lists stages and names.
    """
    chosen = set(attentions) if include is None else _matching(attentions, include, "include", kind)
    return chosen - (_matching(attentions, exclude, "exclude", kind) if exclude is not None else set())


def choose_families(known: Mapping[str, Family], names: Sequence[str] | str | None) -> Iterable[Family]:
    """Returns the families called ``names``; if None, all but extensions.

    Raises:
        PatternError: for a name that no family has.
    """
    if names is None:
        return [family for family in known.values() if not family.extension]
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in known:
            raise PatternError(f"families: there is no family {name!r}; known are {', '.join(known)}.")
    return [known[name] for name in names]


def _matching(
    attentions: Mapping[tuple[str, ...], str | None], patterns: str | Sequence[str], argument: str, kind: str
) -> set[tuple[str, ...]]:
    matching = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        hits = {names for names, stage in attentions.items() if _hits(pattern, names, stage)}
        if not hits:
            raise PatternError(_nothing(attentions, pattern, argument, kind))
        matching |= hits
    return matching


def _hits(pattern: str, names: tuple[str, ...], stage: str | None) -> bool:
    return pattern == stage or any(fnmatchcase(part, pattern) for name in names for part in _leading(name))


def _leading(name: str) -> list[str]:
    """``a.b.c`` -> ``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _nothing(attentions: Mapping[tuple[str, ...], str | None], pattern: str, argument: str, kind: str) -> str:
    names = sorted(name for each in attentions for name in each)
    stages = sorted({stage for stage in attentions.values() if stage is not None})
    close = get_close_matches(pattern, [*stages, *{_leading(name)[0] for name in names}], n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return (
        f"{argument}={pattern!r} selects none of the {kind} attentions.{hint} Stages: "
        f"{', '.join(stages) or 'unknown for this backbone'}; names: {some_of(names) or 'none'}."
    )
