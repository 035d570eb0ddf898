"""``config.json``: describes the weights in the same folder."""

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
"""What the folder holds -> name of the weights' file; that of a network is the Hub's standard name."""

_OPTIONS = "ExDAConfig"
"""The only key of the JSON object that stands for a constructor argument of type ``ExDAConfig``."""


@dataclass(frozen=True)
class PretrainedConfig:
    """What a folder holds.

    Attributes:
        holds: ``"network"`` or ``"patch"``.
        architecture: name of the network, or of the patch's host, for ``exda_primitives.models.create``; None if the
            patch's host is not a known network.
        arguments: arguments of the network's constructor; None without an architecture.
        attentions: name -> configuration of each ExDA attention.
        parameters: number of parameters of the whole network, even if the folder holds only a patch.
        added: number of those that ExDA added.
        dtype: dtype of the weights; several are joined by commas.
        host: fingerprint of the weights that the patch was trained on, as ``exda_primitives.save`` computes it; None
            for a network.
        version: version of the library that wrote the folder.
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
        """Name of the weights' file in the folder."""
        return WEIGHTS[self.holds]

    def as_json(self) -> str:
        """Returns the text of ``config.json``.

        Raises:
            ConfigError: for an argument that JSON cannot represent.
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
        """Returns the configuration as it is after writing and reading it: tuples become lists."""
        return _of_plain(json.loads(self.as_json()), Path(FILE))


def read_config(path: Path) -> PretrainedConfig:
    """Reads the ``config.json`` that ``save_pretrained`` wrote.

    Raises:
        CheckpointError: for a file that is missing, damaged, another library's, or of a newer version.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: does not exist, so it is unknown which network the weights belong to. For a file of weights "
            f"alone use exda.models.create(checkpoint=FILE), or exda.load(model, FILE) for a patch."
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
    # Only the fixed names: a downloaded file must not choose which path is read.
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
