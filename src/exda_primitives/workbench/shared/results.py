"""Result files: what was measured, with the seeds, versions, machine and configuration that it came from.

A result is plain data, an envelope around runs::

    {"kind": "digits", "schema": 1, "command": "exda ...", "machine": {...}, "config": {...}, "seeds": [0, 1, 2],
     "runs": [{...}, ...]}

``config`` is what all runs must share to be compared in one table; what distinguishes the runs of a file (a variant, a
seed) belongs into the runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...errors import ConfigError, ExDAError
from ...files import write_text
from .files import check_writable
from .machine import machine

SCHEMA = 1
"""Version of the envelope. A file of another version is refused."""

_TYPES = {"kind": str, "schema": int, "command": str, "machine": dict, "config": dict, "seeds": list, "runs": list}

Result = dict[str, Any]


def begin(
    path: Path,
    kind: str,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    command: str,
    device: torch.device | None = None,
    *,
    replace: bool = False,
) -> Result:
    """Returns a result to add runs to: a new one, or the file's with all its runs. Writes nothing; see ``write``.

    Args:
        path: where the result is, or will be.
        kind: what was measured.
        config: what all runs share, plain data.
        seeds: seeds of the runs to come; they are added to those of the file.
        command: what to type to get the same file; added to the commands of the file.
        device: where it is measured, if that is not the CPU.
        replace: begin a new result whatever the file holds.

    Returns:
        The envelope. Its machine is this one; its commit names this commit and those at which the file was written.

    Raises:
        ConfigError: for a file that is no such result, or has another configuration or machine, and for a folder that
            is not writable.
        ExDAError: for a configuration that is not plain data or not finite.
    """
    fresh = _plain(
        {
            "kind": kind,
            "schema": SCHEMA,
            "command": command,
            "machine": machine(device),
            "config": dict(config),
            "seeds": list(seeds),
            "runs": [],
        }
    )
    check_writable(path.parent)
    if replace or not path.exists():
        return fresh
    held = read(path, kind)
    _check_same(path, held, fresh, "config")
    # Runs from several commits may share a file, those from several machines may not: taken out of the comparison.
    commits = dict.fromkeys([*held["machine"].pop("commit", "unknown").split(", "), fresh["machine"].pop("commit")])
    _check_same(path, held, fresh, "machine")
    fresh["machine"]["commit"] = ", ".join(commits)
    commands = dict.fromkeys([*held["command"].split("; "), command])
    return fresh | {
        "command": "; ".join(commands),
        "seeds": sorted({*held["seeds"], *fresh["seeds"]}),
        "runs": held["runs"],
    }


def write(path: Path, result: Mapping[str, Any], *, replace: bool = False) -> None:
    """Writes a result atomically: an existing file stays until the new one is complete.

    Args:
        path: the file; its folder is created if necessary.
        result: an envelope, see ``begin``.
        replace: overwrite a file of another kind, version or configuration as well.

    Raises:
        ConfigError: if an existing file is no result of the same kind, version and configuration; it is unchanged.
        ExDAError: for a number that is not finite, or a value that is not plain data; nothing is written.
    """
    plain = _plain(dict(result))
    missing = [key for key in _TYPES if key not in plain]
    if missing:
        raise ExDAError(f"{path}: a result needs {missing[0]!r}; begin one with results.begin()")
    if path.exists() and not replace:
        _check_same(path, read(path, plain["kind"]), plain, "config")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(plain, indent=1, allow_nan=False) + "\n")


def read(path: Path, kind: str) -> Result:
    """Reads the result in a file.

    Raises:
        ConfigError: for a file that is missing, damaged, no result, or of another kind or version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); give another path or remove the file") from None
    if not isinstance(found, dict) or "kind" not in found or "schema" not in found:
        raise ConfigError(f"{path}: is no result of this library; give another path or remove the file")
    if found["kind"] != kind:
        raise ConfigError(f"{path}: holds a result of kind {found['kind']!r}, expected {kind!r}; give another path")
    if found["schema"] != SCHEMA:
        raise ConfigError(f"{path}: is of version {found['schema']!r}, this library reads {SCHEMA}; measure again")
    for key, expected in _TYPES.items():
        if key not in found:
            raise ConfigError(f"{path}: lacks {key!r}; it is damaged, measure again")
        if not isinstance(found[key], expected):
            raise ConfigError(f"{path}: {key!r} is a {type(found[key]).__name__}; it is damaged, measure again")
    return found


class Spread(NamedTuple):
    """Mean, sample standard deviation (None for a single value) and number of values."""

    mean: float
    deviation: float | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Returns the mean, the sample standard deviation (n - 1) and the number of values.

    Raises:
        ExDAError: if there are no values, or one is not finite.

    Examples:
        >>> spread([1.0, 2.0, 3.0])
        Spread(mean=2.0, deviation=1.0, n=3)
    """
    numbers = _finite(values)
    return Spread(float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None, len(numbers))


class Interval(NamedTuple):
    """A mean with its confidence interval, from ``low`` to ``high``."""

    low: float
    mean: float
    high: float


def difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Returns the mean of ``ours - theirs`` over pairs, with its percentile bootstrap interval.

    Pairs are drawn with replacement. The interval always lies between the smallest and the largest difference; with
    three pairs it is hardly more than these two.

    Args:
        ours: one value for each pair (a seed, an image).
        theirs: the values to compare with, in the same order.
        confidence: confidence level of the interval.
        draws: number of resamples.
        seed: seed of the resampling.

    Raises:
        ExDAError: if there are no pairs, the numbers of values differ, or one is not finite.
    """
    if len(ours) != len(theirs):
        raise ExDAError(f"a difference pair by pair needs as many values of each, got {len(ours)} and {len(theirs)}")
    differences = _finite(ours) - _finite(theirs)
    picks = np.random.default_rng(seed).integers(len(differences), size=(draws, len(differences)))
    means = differences[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(differences.mean()), float(high))


def _finite(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size:
        raise ExDAError("no values: nothing was measured")
    if not np.isfinite(numbers).all():
        raise ExDAError(f"of {numbers.size} values {int((~np.isfinite(numbers)).sum())} are not finite numbers")
    return numbers


def _check_same(path: Path, held: Result, ours: Result, key: str) -> None:
    theirs, mine = held[key], ours[key]
    differing = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    if differing:
        name = differing[0]
        raise ConfigError(
            f"{path}: holds runs of another {key} ({name} {theirs.get(name)!r}, here {mine.get(name)!r}); "
            f"give another path or remove the file"
        )


def _plain(result: dict[str, Any]) -> Result:
    """Returns the result as JSON gives it back (tuples become lists), so that it compares equal to what is read."""
    _check_plain("result", result)
    plain: Result = json.loads(json.dumps(result))
    return plain


def _check_plain(name: str, value: object) -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise ExDAError(
                    f"{name}: key {key!r} is a {type(key).__name__}, but keys in JSON are strings; nothing was written"
                )
            _check_plain(f"{name}.{key}", each)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            _check_plain(f"{name}[{index}]", each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ExDAError(f"{name} is {value}, not a finite number; nothing was written")
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise ExDAError(f"{name} is a {type(value).__name__}, not plain data; nothing was written")
