"""The folder of a run: its files, what a run can be resumed from, and its lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ...errors import ConfigError, WriteError
from ..shared.files import check_writable, fingerprint
from .config import Difference, TrainConfig, differences, first_of
from .state import read_checkpoint

_FREE = (
    "data.validation",
    "data.workers",
    "recipe.log_every",
    "recipe.log_to",
    "recipe.save_every",
    "recipe.validate_every",
    "recipe.validation_images",
)
"""Keys that may change when a run is resumed: no weight depends on them."""
PLACES = ("data.source", "data.whole")
"""Keys that may change when a run is resumed if the images are the same."""
_BEGIN = "model.checkpoint"
"""Key that may change when a run is resumed if the file has the same content; its weights are not loaded again."""


class Begun(NamedTuple):
    """A run to resume.

    Attributes:
        step: steps done.
        legs: for each start and resume: after which step, and the ``circumstances``.
        changes: changes of its configuration that do not affect results.
        moved: changes that are allowed only if the images are the same as before.
    """

    step: int
    legs: list[dict[str, Any]]
    changes: list[Difference]
    moved: list[Difference]


class Folder(NamedTuple):
    """The folder that holds the files of a run."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Everything that is needed to resume the run."""
        return self.path / "last.ckpt"

    @property
    def weights(self) -> Path:
        """The network at the last checkpoint; its moving average, if there is one."""
        return self.path / "weights.safetensors"

    @property
    def result(self) -> Path:
        """The result, written last: if it exists, the run is done."""
        return self.path / "result.json"

    @property
    def plot(self) -> Path:
        """The plot of the history, written when the run is done."""
        return self.path / "history.png"

    @property
    def sheet(self) -> Path:
        """Crops of a few validation images, of the last validation."""
        return self.path / "validation.png"

    def network(self, config: TrainConfig) -> Path | None:
        """Returns the file from which to build the network of a resumed run, or None for a new run.

        The checkpoint with which the run began is not needed any more.
        """
        # With LoRA the checkpoint's names are not those of a known network; in the weights LoRA is merged.
        path = self.checkpoint if config.lora is None else self.weights
        return path if self.checkpoint.exists() and path.exists() else None

    def begun(self, config: TrainConfig) -> Begun | None:
        """Returns the run to resume, or None if the folder holds no file of a run.

        Raises:
            ConfigError: if the run has another configuration, if the folder holds other files of a run but no
                checkpoint, or if it is not writable.
            CheckpointError: if the checkpoint cannot be read.
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

    def refuse(self, differing: list[Difference]) -> None:
        """Raises ConfigError if there are differences that forbid to resume the run."""
        if differing:
            raise ConfigError(
                f"{self.path}: holds a run with another configuration: {first_of(differing)}. Give another folder; to "
                f"go on from its weights with other settings, set model.checkpoint to {self.weights} there."
            )

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Locks the folder against other runs, and removes files that a killed run has left half-written.

        Raises:
            ConfigError: if another run holds the lock.
            WriteError: if the folder is not writable.
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
            # A file system without locks: goes on unlocked, and keeps partial files, which may be another run's.
            pass
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written to ({error.strerror or error}).") from error
        try:
            yield
        finally:
            lock.release()

    def _tidy(self) -> None:
        for file in (self.checkpoint, self.weights, self.result, self.plot, self.sheet):
            for partial in self.path.glob(f".{file.name}.*.partial"):
                partial.unlink()

    def _same_begin(self, change: Difference, legs: list[dict[str, Any]]) -> bool:
        # Files are compared by their SHA-256, which the first leg recorded.
        known = legs[0].get("begins_with")
        if change.key != _BEGIN or known is None or change.now is None:
            return False
        try:
            return fingerprint(Path(change.now)) == known
        except OSError:
            return False


def begins_with(config: TrainConfig) -> Mapping[str, str]:
    """Returns the first leg's entry on the checkpoint that the run begins with: its SHA-256, or nothing without one.

    Raises:
        OSError: if the file cannot be read.
    """
    checkpoint = config.model.checkpoint
    return {} if checkpoint is None else {"begins_with": fingerprint(Path(checkpoint))}
