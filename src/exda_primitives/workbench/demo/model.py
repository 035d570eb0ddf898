"""The network that the demo ships, and its weights."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from safetensors.torch import load
from torch import Tensor

from ...models import Restormer


def tiny_restormer() -> Restormer:
    """Builds a Restormer of 420,911 parameters: small enough to ship, and to train on a CPU within an hour."""
    return Restormer(
        dim=12,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        heads=(1, 2, 4, 8),
        ffn_expansion_factor=2.0,
        bias=False,
        LayerNorm_type="WithBias",
    )


def weights_file(of: Literal["host", "exda"]) -> bytes:
    """Returns the content of the safetensors file for ``tiny_restormer`` ("host"), or for its patched form ("exda")."""
    return (resources.files(__package__) / "data" / f"{of}.safetensors").read_bytes()


def patch_file() -> Path:
    """Returns the path of the patch: the parameters of ExDA with which the host restores images in low light."""
    return Path(str(resources.files(__package__) / "data" / "low_light.safetensors"))


def weights(of: Literal["host", "exda"]) -> dict[str, Tensor]:
    """Returns the state dict in ``weights_file``."""
    return load(weights_file(of))
