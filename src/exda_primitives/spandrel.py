"""A plug-in for spandrel, and thereby for programs that load models with it (chaiNNer, ComfyUI).

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
    # Raises the error that says what to install.
    require_extra("spandrel", "spandrel")
    raise


class ExDAArch(Architecture[nn.Module]):  # type: ignore[misc]
    """Any network of ``exda_primitives.models`` with ExDA attentions, patched in or built in, in all or some places."""

    def __init__(self) -> None:
        super().__init__(id="ExDA", name="ExDA", detect=_says_how_it_was_patched)

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[nn.Module]:
        """Builds the network with the configuration of each attention that the state dict holds, and loads it.

        Raises:
            CheckpointError: for an unknown network, and for weights that do not fit or are damaged.
        """
        # The loader may have put the tensors on its own device; weights are checked on the CPU.
        tensors = {name: each.cpu() for name, each in state_dict.items() if isinstance(each, Tensor)}
        model, identity = from_state(tensors, Path("the state dict"))
        arguments = identity.arguments
        return ImageModelDescriptor(
            model,
            model.state_dict(),
            architecture=self,
            purpose="Restoration",
            tags=_tags(identity),
            # An ExDA attention takes norms and sums in float32; the network's other layers may not.
            supports_half=False,
            supports_bfloat16=True,
            scale=1,
            input_channels=arguments.get("inp_channels", 3),
            output_channels=arguments.get("out_channels", 3),
            size_requirements=SizeRequirements(multiple_of=known_multiple(model) or MULTIPLE),
            # Channel attention and tokens look at the whole input: on a tile they see the tile alone.
            tiling=ModelTiling.DISCOURAGED,
        )


def _says_how_it_was_patched(state_dict: dict[str, Any]) -> bool:
    """Whether the state dict holds the configuration of an ExDA attention, as this library has written since 0.1."""
    for name, entry in state_dict.items():
        if name.rpartition(".")[2] == DESCRIPTION and isinstance(entry, Tensor):
            try:
                decoded(entry, name)
            except CheckpointError:
                # Another library's extra state.
                continue
            return True
    return False


def _tags(identity: Identity) -> list[str]:
    dim = identity.arguments.get("dim")
    configs = identity.state.by_config()
    options = [f"{config.tokens} tokens, value {config.value}" for config in configs]
    return [identity.architecture.name, *([] if dim is None else [f"{dim}dim"]), *options]


EXTRA_REGISTRY = ArchRegistry()
"""The architecture of this plug-in, for ``MAIN_REGISTRY.add(*EXTRA_REGISTRY)``."""

# A patched Restormer has all the keys by which spandrel recognises a Restormer: this plug-in has to be asked first.
EXTRA_REGISTRY.add(
    ArchSupport.from_architecture(ExDAArch(), before=("Restormer", "KBNet", "M3SNet")),
)


def install(*, ignore_duplicates: bool = False) -> list[ArchSupport]:
    """Lets ``spandrel.ModelLoader`` open this library's files; it asks this plug-in before its own Restormer.

    Args:
        ignore_duplicates: do nothing, instead of raising an error, if the plug-in is installed already.

    Returns:
        The entries that were added to spandrel's registry.

    Raises:
        spandrel.DuplicateArchitectureError: if the plug-in is installed already, without ``ignore_duplicates``.
    """
    return MAIN_REGISTRY.add(*EXTRA_REGISTRY, ignore_duplicates=ignore_duplicates)
