"""Combines a configuration object and options by keyword into one configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from ..errors import ConfigError
from ..primitives import ExDAConfig, ExDAOptions


def configured(
    function: str, config: ExDAConfig | None, options: ExDAOptions, keywords: Sequence[str] = ()
) -> ExDAConfig:
    """Returns ``config``, or the default, with ``options`` on top.

    Args:
        function: name of the called function, for messages.
        config: the configuration that the caller gave, or None.
        options: the caller's keywords, except the function's own.
        keywords: names of the function's own keywords, for messages.

    Raises:
        ConfigError: for an unknown keyword, an unknown option, and a ``config`` that is not an ``ExDAConfig``.
    """
    given: dict[str, Any] = dict(options)
    known = [each.name for each in fields(ExDAConfig)]
    for name, value in given.items():
        if name not in known:
            close = get_close_matches(name, [*known, *keywords], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            beside = f"; the other keywords are {', '.join(keywords)}" if keywords else ""
            raise ConfigError(
                f"{function}({name}={value!r}): there is no such keyword.{hint} The options are "
                f"{', '.join(known)}{beside}."
            )
    if config is None:
        return ExDAConfig(**given)
    if not isinstance(config, ExDAConfig):
        raise ConfigError(
            f"{function}: expected an ExDAConfig, got {config!r}; write exda.ExDAConfig(tokens=..., value=..., ...), "
            f"or the options by keyword: {function}(..., tokens=..., value=...)."
        )
    return replace(config, **given)
