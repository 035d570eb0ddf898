"""The folder of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..files import check_writable
from .config import TrainConfig, differences
from .state import read_checkpoint

_FREE = ("data.workers",)
"""What may change when a run is taken up again: nothing that is computed depends on it."""


class Folder(NamedTuple):
    """Where the files of a run are."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """All that it takes to go on."""
        return self.path / "last.ckpt"

    @property
    def weights(self) -> Path:
        """The network as of the checkpoint; its moving average, where there is one."""
        return self.path / "weights.safetensors"

    @property
    def result(self) -> Path:
        """Written when the run is done."""
        return self.path / "result.json"

    @property
    def plot(self) -> Path:
        """Likewise."""
        return self.path / "history.png"

    def begun(self, config: TrainConfig) -> Mapping[str, Any] | None:
        """The checkpoint to go on from, or None in a folder that holds nothing of a run.

        Raises:
            ConfigError: if it was made with another configuration, if there are files of a run without one, or if
                nothing can be written there.
            CheckpointError: if it cannot be read.
        """
        check_writable(self.path)
        if not self.checkpoint.exists():
            there = [path.name for path in (self.weights, self.result, self.plot) if path.exists()]
            if there:
                raise ConfigError(
                    f"{self.path}: holds {there[0]} but no {self.checkpoint.name} to go on from; it would be "
                    f"overwritten. Give another folder."
                )
            return None
        held = read_checkpoint(self.checkpoint)
        unlike = [line for line in differences(held["config"], config.as_dict()) if not line.startswith(tuple(_FREE))]
        if unlike:
            more = f" (and {len(unlike) - 1} more)" if len(unlike) > 1 else ""
            raise ConfigError(
                f"{self.path}: holds a run with another configuration: {unlike[0]}{more}. Give another folder; to go "
                f"on from its weights with other settings, set model.checkpoint to {self.weights} there."
            )
        return held
