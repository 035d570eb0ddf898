"""What a user asks for: which network shall learn what, from which images, in which time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..training.config import Difference, differences
from .methods import METHODS

FIXED = (
    "model",
    "data.benchmark",
    "data.degradations",
    "data.held_out",
    "data.source",
    "data.validation",
    "recipe.epochs",
    "recipe.train",
)
"""Keys that ``changes`` must not replace: other arguments determine them, or the file would lack what is trained."""


@dataclass(frozen=True)
class Asked:
    """A network, what it shall learn, and how long that may take.

    Attributes:
        checkpoint: the trained network's weights.
        clean: clean images to degrade (a folder, zip or npz), or the folder of the clean images of pairs.
        degradations: how clean images are degraded, as in ``exda_primitives.data.degrade``; empty for pairs.
        degraded: folder of the pairs' degraded images; None for clean images.
        method: a key of ``METHODS``.
        minutes: time for the training and the search for its learning rate, in minutes.
        held_out: number of images (or pairs) that are not trained on but restored for the table; None for a fifth, at
            least 1 and at most 16.
        changes: ``section.key=value`` each, for the training configuration; ``recipe.steps=...`` replaces ``minutes``.

    Raises:
        ConfigError: for values that do not go together or are out of range.
    """

    checkpoint: Path
    clean: Path
    degradations: tuple[str, ...] = ()
    degraded: Path | None = None
    method: str = next(iter(METHODS))
    minutes: float = 30.0
    held_out: int | None = None
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.degradations) == (self.degraded is not None):
            raise ConfigError(
                "adaptation: give either degradations of the clean images, or a folder of degraded ones; found "
                f"{'both' if self.degradations else 'neither'}."
            )
        if self.method not in METHODS:
            raise ConfigError(f"adaptation: found method {self.method!r}, expected one of {', '.join(METHODS)}.")
        if not self.minutes > 0:
            raise ConfigError(f"adaptation: found {self.minutes} minutes, expected more than 0.")
        for change in self.changes:
            key = change.partition("=")[0].strip()
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
                raise ConfigError(f"adaptation: {key} cannot be changed; the other arguments determine it.")

    def fixes(self, key: str) -> bool:
        """Returns whether ``changes`` sets a key of the training configuration."""
        return any(change.partition("=")[0].strip() == key for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        """Returns the request as plain data, with absolute paths."""
        plain = asdict(self) | {"degradations": list(self.degradations), "changes": list(self.changes)}
        return {name: str(each.absolute()) if isinstance(each, Path) else each for name, each in plain.items()}

    def differences_from(self, held: Mapping[str, Any]) -> list[Difference]:
        """Returns how an earlier request, as plain data, differs."""
        return differences(held, self.as_dict())
