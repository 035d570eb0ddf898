"""The folder of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ...errors import ConfigError, WriteError
from ..shared.files import check_writable, fingerprint
from .config import Difference, TrainConfig, differences
from .state import read_checkpoint

_FREE = ("data.validation", "data.workers", "recipe.log_every", "recipe.save_every", "recipe.validate_every")
"""What may change when a run is taken up again: no weight depends on it."""
PLACES = ("data.source", "data.whole")
"""What may change where the images are the same."""
_BEGIN = "model.checkpoint"
"""What may change where the file is the same; it is not looked into again."""


class Begun(NamedTuple):
    """A run to go on with.

    Attributes:
        step: steps done.
        legs: where it was begun and taken up again, and on what.
        changes: of its configuration, nothing that is computed depends on them.
        moved: those that hold only if the images are the same as before.
    """

    step: int
    legs: list[dict[str, Any]]
    changes: list[Difference]
    moved: list[Difference]


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
        """Written when the run is done, after all else."""
        return self.path / "result.json"

    @property
    def plot(self) -> Path:
        """Likewise."""
        return self.path / "history.png"

    def network(self, config: TrainConfig) -> Path | None:
        """The file that the network of a run that goes on is told from: that with which it began is not needed."""
        # LoRA is no part of a network that can be told; in the weights it is merged.
        path = self.checkpoint if config.lora is None else self.weights
        return path if self.checkpoint.exists() and path.exists() else None

    def begun(self, config: TrainConfig) -> Begun | None:
        """What there is to go on from, or None in a folder that holds nothing of a run.

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
        found = differences(held["config"], config.as_dict())
        moved = [each for each in found if each.within(PLACES)]
        free = [each for each in found if each.within(_FREE) or self._same_begin(each, held["legs"])]
        self.refuse([each for each in found if each not in (*moved, *free)])
        return Begun(held["step"], held["legs"], free, moved)

    def refuse(self, unlike: list[Difference]) -> None:
        """Raises ConfigError unless there is none."""
        if unlike:
            more = f" (and {len(unlike) - 1} more)" if len(unlike) > 1 else ""
            raise ConfigError(
                f"{self.path}: holds a run with another configuration: {unlike[0]}{more}. Give another folder; to go "
                f"on from its weights with other settings, set model.checkpoint to {self.weights} there."
            )

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keeps other runs out, and removes what one that was killed has left half written.

        Raises:
            ConfigError: where another run is at work.
            WriteError: if nothing can be written there.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            self._tidy()
        except Timeout:
            raise ConfigError(
                f"{self.path}: another run is at work there. Wait for it, or give another folder."
            ) from None
        except NotImplementedError:
            # A file system without locks: who could be writing there cannot be told.
            pass
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written to ({error.strerror or error}).") from error
        try:
            yield
        finally:
            lock.release()

    def _tidy(self) -> None:
        for file in (self.checkpoint, self.weights, self.result, self.plot):
            for partial in self.path.glob(f".{file.name}.*.partial"):
                partial.unlink()

    def _same_begin(self, change: Difference, legs: list[dict[str, Any]]) -> bool:
        known = legs[0].get("begins_with")
        if change.key != _BEGIN or known is None or change.now is None:
            return False
        try:
            return fingerprint(Path(change.now)) == known
        except OSError:
            return False


def begins_with(config: TrainConfig) -> Mapping[str, str]:
    """The first leg's note of the file that the run begins with, if it does begin with one.

    Raises:
        OSError: if it cannot be read.
    """
    checkpoint = config.model.checkpoint
    return {} if checkpoint is None else {"begins_with": fingerprint(Path(checkpoint))}
