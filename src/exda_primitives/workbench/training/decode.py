"""Decodes plain data into frozen dataclasses, with errors that name the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ...errors import ConfigError

T = TypeVar("T")


def decode(kind: type[T], given: object, key: str) -> T:
    """Creates an instance of the dataclass ``kind``.

    Args:
        kind: a dataclass. The type of a field is ``bool``, ``int``, ``float``, ``str``, ``Any``, a ``Literal`` of
            strings, ``tuple[X, ...]`` (from a list, or from a single X), ``dict[str, X]``, another such dataclass, a
            union of one of these and None, or a union of ``str`` and a dataclass.
        given: a mapping of names to values.
        key: name of ``given`` in errors; empty for a whole file.

    Raises:
        ConfigError: for a key that is unknown or missing, or a value of another type.
    """
    prefix = f"{key}." if key else ""
    if not isinstance(given, Mapping):
        raise _wrong(key or "the configuration", given, "names with values")
    hints = get_type_hints(kind)
    known = [each for each in fields(kind) if each.init]  # type: ignore[arg-type]
    for name in given:
        if name not in hints:
            close = get_close_matches(str(name), hints, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"{prefix}{name}: is not known.{hint} Known are {', '.join(each.name for each in known)}."
            )
    for each in known:
        if each.name not in given and each.default is MISSING and each.default_factory is MISSING:
            raise ConfigError(f"{prefix}{each.name}: is missing.")
    return kind(**{name: _value(hints[name], value, f"{prefix}{name}") for name, value in given.items()})


def _value(hint: Any, given: object, key: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        if given is None and NoneType in get_args(hint):
            return None
        hint = _meant(get_args(hint), given)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if given not in arguments:
            raise _wrong(key, given, f"one of {', '.join(map(repr, arguments))}")
        return given
    if origin is tuple:
        listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        return tuple(_value(arguments[0], each, f"{key}[{index}]") for index, each in enumerate(listed))
    if origin is dict:
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise _wrong(key, given, "names with values")
        return {name: _value(arguments[1], each, f"{key}.{name}") for name, each in given.items()}
    if isinstance(hint, type) and is_dataclass(hint):
        return decode(hint, given, key)
    return _plain(hint, given, key)


def _meant(hints: Sequence[Any], given: object) -> Any:
    """Returns the member of a union by which to read a value: a Literal with it, a dataclass for a mapping, or else."""
    choices = [each for each in hints if get_origin(each) is Literal]
    for each in choices:
        if given in get_args(each):
            return each
    kinds = [each for each in hints if each is not NoneType and each not in choices] or choices
    # False sorts before True: dataclasses come last.
    plain, *sections = sorted(kinds, key=is_dataclass)
    return sections[0] if sections and isinstance(given, Mapping) else plain


def _plain(hint: Any, given: object, key: str) -> Any:
    if hint is Any:
        return given
    if hint is float:
        # PyYAML reads 2e-4, a float without a point, as text.
        number = _number(given)
        if number is None:
            raise _wrong(key, given, "a number")
        return number
    names = {bool: "true or false", int: "a whole number", str: "a text"}
    if not isinstance(given, hint) or (hint is int and isinstance(given, bool)):
        raise _wrong(key, given, names[hint])
    return given


def _number(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        return None
    try:
        return float(given)
    except ValueError:
        return None


def _wrong(key: str, given: object, expected: str) -> ConfigError:
    return ConfigError(f"{key}: found {given!r} ({type(given).__name__}), expected {expected}.")
