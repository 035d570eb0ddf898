"""Reads configuration files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..shared.packages import yaml
from .config import TrainConfig
from .presets import ABLATION_INIT, ABLATIONS, RECIPES

_LENGTHS = ("steps", "epochs")


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Reads the configuration of a run from a YAML (or JSON) file.

    The file has the sections ``model``, ``primitives``, ``data``, ``recipe`` and ``lora`` of ``TrainConfig``. It may
    start from one of ``RECIPES``, named by ``base``, and from one of ``ABLATIONS``, named by ``primitives.ablation``.
    Paths in it are relative to the working directory.

    Args:
        path: the file.
        changes: ``section.key=value`` each; they win over the file. The value is YAML, except that it may begin with a
            star, as a pattern does.

    Raises:
        ConfigError: for a file that cannot be read, a key that is unknown or missing, and a value of a wrong type or
            out of range.
        ExDAError: if PyYAML is not installed.
    """
    given = with_changes(_mapping(_parsed(_text(path), str(path)), str(path)), changes)
    try:
        return TrainConfig.decoded(resolved(given))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def with_changes(given: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Returns a file's contents with values replaced.

    Args:
        given: the contents.
        changes: as for ``read_config``.

    Raises:
        ConfigError: for a change that is not ``section.key=value``.
    """
    changed: dict[str, Any] = {}
    for change in changes:
        _set(changed, change)
    merged = deepcopy(dict(given))
    _put_over(merged, changed)
    return merged


def resolved(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``given`` merged over the base and the ablation that it names; neither name is left."""
    own = deepcopy(dict(given))
    base = own.pop("base", None)
    merged: dict[str, Any] = {} if base is None else deepcopy(dict(_named(RECIPES, base, "base")))
    primitives = own.get("primitives")
    if primitives == "none":
        own["primitives"] = None
    elif isinstance(primitives, dict) and "ablation" in primitives:
        letter = primitives.pop("ablation")
        own["primitives"] = {"init": ABLATION_INIT, **_named(ABLATIONS, letter, "primitives.ablation"), **primitives}
    _put_over(merged, own)
    return merged


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from None


def _parsed(text: str, where: str) -> Any:
    parser = yaml()
    try:
        return parser.safe_load(text)
    except (parser.YAMLError, ValueError, RecursionError) as error:
        hint = " A pattern that begins with * goes in quotes." if "alias" in str(error) else ""
        raise ConfigError(f"{where}: is no YAML ({' '.join(str(error).split())}).{hint}") from None


def _mapping(given: object, where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(
            f"{where}: found {type(given).__name__}, expected sections: model, primitives, data, recipe, lora, base."
        )
    return given


def _set(given: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not name or not all(sections):
        raise ConfigError(f"{change!r}: expected section.key=value, for example recipe.steps=100.")
    held = given
    for section in sections:
        if not isinstance(held.get(section), dict):
            held[section] = {}
        held = held[section]
    # In YAML a star begins an alias, which cannot occur in a single value; here it begins a pattern.
    held[name] = value if value.startswith("*") else _parsed(value, change)


def _named(known: Mapping[str, Mapping[str, Any]], name: object, key: str) -> Mapping[str, Any]:
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"{key}: found {name!r}, expected one of {', '.join(known)}.")
    return known[name]


def _put_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    recipe, held = above.get("recipe"), below.get("recipe")
    if isinstance(recipe, Mapping) and isinstance(held, dict):
        if any(length in recipe for length in _LENGTHS):
            # steps and epochs exclude each other: whichever is given above replaces the one below.
            for length in _LENGTHS:
                held.pop(length, None)
        if recipe.get("progressive") is not None:
            # Likewise the stages replace the one patch and batch.
            held.pop("batch", None)
            if isinstance(below.get("data"), dict):
                below["data"].pop("patch", None)
    _merge(below, above)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for name, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value
