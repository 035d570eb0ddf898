"""The state of a run is restored as it was."""

import torch
from torch import nn

from exda_primitives.workbench.training.config import RecipeConfig
from exda_primitives.workbench.training.state import State, read_checkpoint


class Versioned(nn.Linear):
    """Version 1 held half of the weight."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *more):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"] * 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)


def test_weights_are_those_of_the_present_version(tmp_path):
    def made():
        return State(nn.Sequential(Versioned(3, 3)), RecipeConfig(steps=1, ema=0.9))

    state, restored = made(), made()
    torch.save({"version": 1, "config": {}, "legs": [], **state.as_dict()}, tmp_path / "state.ckpt")
    restored.restore(read_checkpoint(tmp_path / "state.ckpt"))
    assert torch.equal(restored.net[0].weight, state.net[0].weight)
    assert torch.equal(restored.result[0].weight, state.result[0].weight)
