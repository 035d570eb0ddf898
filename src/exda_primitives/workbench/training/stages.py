"""The stages of a run: which patches and batches it trains on at which steps."""

from __future__ import annotations

from typing import NamedTuple

from .config import TrainConfig


class Stage(NamedTuple):
    """Steps with one size of patches and of batches.

    Attributes:
        begin: first step.
        end: first step after it.
        patch: side of the patches, in pixels.
        batch: pairs in a batch of one process.
    """

    begin: int
    end: int
    patch: int
    batch: int

    def __str__(self) -> str:
        return f"patches of {self.patch}, batches of {self.batch}, to step {self.end:,}"


def stages_of(config: TrainConfig, steps: int) -> list[Stage]:
    """Returns the stages of a run of ``steps`` steps; a single one without ``recipe.progressive``."""
    recipe, patch = config.recipe, config.data.patch
    if recipe.progressive is None:
        # Set by TrainConfig.
        assert patch is not None
        assert recipe.batch is not None
        return [Stage(0, steps, patch, recipe.batch)]
    ends = recipe.stage_ends()
    return [
        Stage(begin, end, stage.patch, stage.batch)
        for begin, end, stage in zip([0, *ends], ends, recipe.progressive, strict=False)
    ]


def patches(config: TrainConfig) -> dict[str, int]:
    """Returns key in the configuration -> side of the patches, for all sides that the run trains on."""
    if config.recipe.progressive is None:
        assert config.data.patch is not None
        return {"data.patch": config.data.patch}
    return {f"recipe.progressive[{i}].patch": stage.patch for i, stage in enumerate(config.recipe.progressive)}
