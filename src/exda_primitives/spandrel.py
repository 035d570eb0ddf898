"""A plug-in for spandrel, and so for the programs that open models with it (chaiNNer, ComfyUI).

>>> import spandrel
>>> from exda_primitives.spandrel import install
>>> added = install(ignore_duplicates=True)
>>> "ExDA" in spandrel.MAIN_REGISTRY
True
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .errors import CheckpointError
from .extras import require_extra
from .models.catalog import Identity, from_state
from .patching.backbones import MULTIPLE, known_multiple
from .primitives.base import DESCRIPTION
from .primitives.description import decoded

try:
    from spandrel import (
        MAIN_REGISTRY,
        Architecture,
        ArchRegistry,
        ArchSupport,
        ImageModelDescriptor,
        ModelTiling,
        SizeRequirements,
    )
except ImportError:
    # Says what to install.
    require_extra("spandrel", "spandrel")
    raise


class ExDAArch(Architecture[nn.Module]):  # type: ignore[misc]
    """Every network of ``exda_primitives.models`` with ExDA attentions, patched in or built in, whole or in part."""

    def __init__(self) -> None:
        super().__init__(id="ExDA", name="ExDA", detect=_says_how_it_was_patched)

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[nn.Module]:
        """Builds the network as it was patched.

        Raises:
            CheckpointError: for a network that is not known, and for weights that do not fit or are damaged.
        """
        # The loader may have put them on its own device.
        tensors = {name: each.cpu() for name, each in state_dict.items() if isinstance(each, Tensor)}
        model, identity = from_state(tensors, Path("the state dict"))
        arguments = identity.arguments
        return ImageModelDescriptor(
            model,
            model.state_dict(),
            architecture=self,
            purpose="Restoration",
            tags=_tags(identity),
            # Norms and sums of an ExDA attention are taken in float32, but those of its host need not be.
            supports_half=False,
            supports_bfloat16=True,
            scale=1,
            input_channels=arguments.get("inp_channels", 3),
            output_channels=arguments.get("out_channels", 3),
            size_requirements=SizeRequirements(multiple_of=known_multiple(model) or MULTIPLE),
            # Attention across channels and tokens see the whole image, of a tile the tile.
            tiling=ModelTiling.DISCOURAGED,
        )


def _says_how_it_was_patched(state_dict: dict[str, Any]) -> bool:
    """Whether an attention in it says how it is configured, as files of this library since version 0.1 do."""
    for name, entry in state_dict.items():
        if name.rpartition(".")[2] == DESCRIPTION and isinstance(entry, Tensor):
            try:
                decoded(entry, name)
            except CheckpointError:
                # Another library's.
                continue
            return True
    return False


def _tags(identity: Identity) -> list[str]:
    dim = identity.arguments.get("dim")
    configs = identity.held.by_config()
    options = [f"{config.tokens} tokens, value {config.value}" for config in configs]
    return [identity.architecture.name, *([] if dim is None else [f"{dim}dim"]), *options]


EXTRA_REGISTRY = ArchRegistry()
"""What this plug-in knows, for ``MAIN_REGISTRY.add(*EXTRA_REGISTRY)``."""

# A patched Restormer has all keys by which a Restormer is known.
EXTRA_REGISTRY.add(
    ArchSupport.from_architecture(ExDAArch(), before=("Restormer", "KBNet", "M3SNet")),
)


def install(*, ignore_duplicates: bool = False) -> list[ArchSupport]:
    """Lets ``spandrel.ModelLoader`` open the files of this library, before it asks its own Restormer.

    Args:
        ignore_duplicates: do nothing, instead of raising an error, where it is installed already.

    Returns:
        What was added to spandrel's registry.

    Raises:
        spandrel.DuplicateArchitectureError: where it is installed already.
    """
    return MAIN_REGISTRY.add(*EXTRA_REGISTRY, ignore_duplicates=ignore_duplicates)
