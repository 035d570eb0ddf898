"""Reports a run to experiment trackers: TensorBoard, and Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ...errors import ExDAError
from ..shared.packages import tensorboard, wandb
from .config import TrackerName, TrainConfig


class Tracker(Protocol):
    """An open log of a run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers by name after a step."""

    def show(self, step: int, name: str, sheet: Tensor) -> None:
        """Logs an image, (H, W, 3) uint8, after a step."""

    def flush(self) -> None:
        """Writes what is still in memory."""

    def close(self, *, failed: bool) -> None:
        """Ends the log of this process."""


class TensorBoard:
    """Event files in a folder, written by ``torch.utils.tensorboard``.

    Args:
        folder: the folder; a resumed run adds a file to it.
        step: steps done.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # What an interrupted run logged after its last checkpoint is computed, and logged, again: TensorBoard drops it.
        self._writer = tensorboard().SummaryWriter(str(folder), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def show(self, step: int, name: str, sheet: Tensor) -> None:
        """See ``Tracker``."""
        self._writer.add_image(name, sheet, step, dataformats="HWC")

    def flush(self) -> None:
        """See ``Tracker``."""
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """See ``Tracker``."""
        self._writer.close()


class WeightsAndBiases:
    """A run of W&B; project, entity and mode are those of its environment variables, such as ``WANDB_PROJECT``.

    Args:
        out: folder of the run, which names it and holds W&B's own files.
        config: configuration of the run.
        identity: W&B's id of the run.

    Raises:
        ExDAError: if W&B refuses to begin, for example without a login.
    """

    def __init__(self, out: Path, config: TrainConfig, identity: str) -> None:
        try:
            # With "allow" an id that is known goes on. W&B ignores steps that it has already: those that an interrupted
            # run logged after its last checkpoint.
            self._run = wandb().init(dir=str(out), name=out.name, id=identity, resume="allow", config=config.as_dict())
        except ExDAError:
            raise
        except Exception as error:
            # wandb has errors of its own for every reason, from a missing login to a missing network.
            raise ExDAError(
                f"recipe.log_to: wandb cannot begin ({type(error).__name__}: {' '.join(str(error).split())}). Run "
                f"'wandb login', set WANDB_MODE=offline, or leave wandb out."
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._run.log(dict(values), step=step)

    def show(self, step: int, name: str, sheet: Tensor) -> None:
        """See ``Tracker``."""
        self._run.log({name: wandb().Image(sheet.numpy())}, step=step)

    def flush(self) -> None:
        """See ``Tracker``; W&B's own process writes as it goes, and outlives this one."""

    def close(self, *, failed: bool) -> None:
        """See ``Tracker``."""
        self._run.finish(exit_code=int(failed))


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Imports what these trackers need.

    Raises:
        ExDAError: if it is not installed.
    """
    packages = {"tensorboard": tensorboard, "wandb": wandb}
    for name in names:
        packages[name]()


def open_trackers(out: Path, config: TrainConfig, step: int, legs: Sequence[dict[str, Any]]) -> Iterator[Tracker]:
    """Opens, one after the other, the trackers that the configuration names.

    Args:
        out: folder of the run.
        config: configuration of the run.
        step: steps done.
        legs: legs of the run; the last one, which begins, gets the id of W&B's run as ``"wandb"``.

    Raises:
        ExDAError: if one cannot begin.
        OSError: if a log cannot be written.
    """
    for name in dict.fromkeys(config.recipe.log_to):
        if name == "tensorboard":
            yield TensorBoard(out / "tensorboard", step)
        else:
            known = (leg["wandb"] for leg in legs if "wandb" in leg)
            legs[-1]["wandb"] = next(known, None) or secrets.token_hex(4)
            yield WeightsAndBiases(out, config, legs[-1]["wandb"])
