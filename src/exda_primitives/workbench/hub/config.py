"""``config.json``: all that is to be known of the weights beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exda_primitives

from ...errors import CheckpointError, ConfigError
from ...primitives import ExDAConfig
from ...primitives.description import Description

FILE = "config.json"
LIBRARY = "exda_primitives"
VERSION = 1
NETWORK, PATCH = "network", "patch"
WEIGHTS = {NETWORK: "model.safetensors", PATCH: "exda.safetensors"}
"""What the folder holds -> its file, under the Hub's own name where it is a network."""

_OPTIONS = "ExDAConfig"
"""Marks an argument that is a configuration."""


@dataclass(frozen=True)
class PretrainedConfig:
    """What a folder holds.

    Attributes:
        holds: ``"network"`` or ``"patch"``.
        architecture: by which ``exda_primitives.models.create`` knows the network, or the patch's host; None for the
            host of a patch that it does not know.
        arguments: of its constructor; None without an architecture.
        attentions: name -> configuration.
        parameters: of the whole network, whatever part of it is here.
        added: of these, how many ExDA added.
        dtype: of the weights; of several, all, with commas.
        host: fingerprint of the weights that the patch was trained on, as ``exda_primitives.save`` takes it.
        version: of the library that wrote it.
    """

    holds: str
    architecture: str | None
    arguments: Mapping[str, Any] | None
    attentions: Mapping[str, Description]
    parameters: int
    added: int
    dtype: str
    host: Mapping[str, str] | None
    version: str = exda_primitives.__version__

    @property
    def weights(self) -> str:
        """The name of the file beside it."""
        return WEIGHTS[self.holds]

    def as_json(self) -> str:
        """The text of the file.

        Raises:
            ConfigError: for an argument that JSON has no form for.
        """
        held = {
            "library_name": LIBRARY,
            "library_version": self.version,
            "config_version": VERSION,
            "holds": self.holds,
            "weights": self.weights,
            "architecture": self.architecture,
            "arguments": None if self.arguments is None else {n: _encoded(n, a) for n, a in self.arguments.items()},
            "attentions": {
                name: {"built_in": each.built_in, **each.config.as_dict()} for name, each in self.attentions.items()
            },
            "parameters": self.parameters,
            "added_parameters": self.added,
            "dtype": self.dtype,
            "host": self.host,
        }
        return json.dumps(held, indent=2) + "\n"

    def read_back(self) -> PretrainedConfig:
        """As it is once it was written and read: with lists for tuples."""
        return _of_plain(json.loads(self.as_json()), Path(FILE))


def read_config(path: Path) -> PretrainedConfig:
    """What ``save_pretrained`` wrote.

    Raises:
        CheckpointError: for a file that is not there, is another library's, of a newer version, or damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: does not exist, so nothing says what the weights are of. For a file of weights alone use "
            f"exda.models.create(checkpoint=FILE), or exda.load(model, FILE) for a patch."
        )
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}).") from None
    library = held.get("library_name") if isinstance(held, dict) else None
    if library != LIBRARY:
        raise CheckpointError(
            f"{path}: was not written by {LIBRARY} (library_name is {library!r}); load it with the library that wrote "
            f"it, or its file of weights with exda.models.create(checkpoint=FILE)."
        )
    try:
        return _of_plain(held, path)
    except CheckpointError:
        raise
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is damaged ({type(error).__name__}: {error}).") from error


def _of_plain(held: dict[str, Any], path: Path) -> PretrainedConfig:
    if int(held["config_version"]) > VERSION:
        raise CheckpointError(
            f"{path}: is of version {held['config_version']}, this library reads up to {VERSION}; upgrade {LIBRARY}."
        )
    # A name from the file would reach for any other.
    if held["weights"] != WEIGHTS[held["holds"]]:
        raise ValueError(f"weights of a {held['holds']} are in {WEIGHTS[held['holds']]}, not in {held['weights']!r}")
    arguments, architecture = held["arguments"], held["architecture"]
    if not isinstance(architecture, str | None) or (held["holds"] == NETWORK and None in (architecture, arguments)):
        raise ValueError(f"architecture is {architecture!r}, with arguments {arguments!r}")
    return PretrainedConfig(
        holds=held["holds"],
        architecture=architecture,
        arguments=None if arguments is None else {name: _decoded(each) for name, each in arguments.items()},
        attentions={
            name: Description(
                ExDAConfig(**{option: value for option, value in each.items() if option != "built_in"}),
                built_in=each["built_in"] is True,
            )
            for name, each in held["attentions"].items()
        },
        parameters=int(held["parameters"]),
        added=int(held["added_parameters"]),
        dtype=str(held["dtype"]),
        host=None if held["host"] is None else dict(held["host"]),
        version=str(held["library_version"]),
    )


def _encoded(name: str, argument: object) -> Any:
    if isinstance(argument, ExDAConfig):
        return {_OPTIONS: argument.as_dict()}
    try:
        return json.loads(json.dumps(argument, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"save_pretrained: {FILE} cannot hold the argument {name}={argument!r} ({error}).") from None


def _decoded(argument: Any) -> Any:
    if isinstance(argument, dict) and argument.keys() == {_OPTIONS}:
        return ExDAConfig(**argument[_OPTIONS])
    return argument
