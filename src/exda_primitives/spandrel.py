"""A plug-in for spandrel, and thereby for programs that load models with it (chaiNNer, ComfyUI).

>>> import spandrel
>>> from exda_primitives.spandrel import install
>>> added = install(ignore_duplicates=True)
>>> "ExDA" in spandrel.MAIN_REGISTRY
True
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .checkpoints.contents import Contents
from .checkpoints.fit import check_fit, copy_into
from .checkpoints.network import parts_of
from .checkpoints.patched_as import patched_as
from .checkpoints.split import SplitState, split_state_dict
from .errors import CheckpointError, ExDAError
from .extras import install_line, require_extra
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
        DuplicateArchitectureError,  # noqa: F401 - what install() needs came with it, in 0.4
        ImageModelDescriptor,
        ModelTiling,
        SizeRequirements,
    )
except ImportError as error:
    # Raises the error that says what to install, where nothing is installed.
    require_extra("spandrel", "spandrel")
    raise ExDAError(f"the spandrel here is too old ({error}); run: {install_line('spandrel')}") from error

_SMALLEST = {"amir": 9}
"""Network -> smallest side in pixels, where that is more than what its sides are multiples of."""

_SOURCE = Path("the state dict")
"""What messages call the file, whose name spandrel does not pass on."""


class ExDAArch(Architecture[nn.Module]):  # type: ignore[misc]
    """A network with ExDA attentions, patched in or built in, in all or some places.

    The network is one of ``exda_primitives.models``, or else of an architecture in spandrel's ``MAIN_REGISTRY``.
    """

    def __init__(self) -> None:
        super().__init__(id="ExDA", name="ExDA", detect=_says_how_it_was_patched)

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[nn.Module]:
        """Builds the network with the configuration of each attention that the state dict holds, and loads it.

        Returns:
            The network. One of spandrel's is described as spandrel does, with ExDA's options among its tags.

        Raises:
            CheckpointError: for an unknown network, and for weights that do not fit or are damaged.
        """
        # The loader may have put the tensors on its own device; weights are checked on the CPU.
        tensors = {name: each.cpu() for name, each in state_dict.items() if isinstance(each, Tensor)}
        try:
            model, identity = from_state(tensors, _SOURCE)
        except CheckpointError as unknown:
            return _of_spandrel(tensors, unknown)
        arguments = identity.arguments
        return ImageModelDescriptor(
            model,
            model.state_dict(),
            architecture=self,
            purpose="Restoration",
            tags=[*_tags(identity), *_options(identity.state)],
            # An ExDA attention takes norms and sums in float32; the network's other layers may not.
            supports_half=False,
            supports_bfloat16=True,
            scale=1,
            input_channels=arguments.get("inp_channels", 3),
            output_channels=arguments.get("out_channels", 3),
            size_requirements=SizeRequirements(
                minimum=_SMALLEST.get(identity.architecture.name, 0), multiple_of=known_multiple(model) or MULTIPLE
            ),
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


def _of_spandrel(tensors: Mapping[str, Tensor], unknown: CheckpointError) -> ImageModelDescriptor[nn.Module]:
    """Returns a network that spandrel can build, patched as the state dict says.

    Raises:
        CheckpointError: if spandrel cannot build it either, with the reason why it is ``unknown`` here; and for weights
            of ExDA that do not fit the network or are damaged.
    """
    refusals = []
    for _, own in Contents.checked(_SOURCE, tensors, "state_dict", {}).unprefixed():
        held = split_state_dict(own, _SOURCE)
        try:
            found = MAIN_REGISTRY.load(dict(held.host))
        except Exception as error:
            # No network, or anything that a loader raises for weights that only look like its network's.
            refusals.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": "))
            continue
        with patched_as(found.model, held.attentions, _SOURCE):
            check_fit(held.added, parts_of(found.model).added, _SOURCE)
            copy_into(found.model, held.added, _SOURCE)
        found.tags += _options(held)
        if any(each.config.tokens for each in held.attentions.values()):
            found.tiling = ModelTiling.DISCOURAGED
        return found
    raise CheckpointError(
        f"{unknown}\n  nor can an architecture in spandrel.MAIN_REGISTRY load it without ExDA ({refusals[-1]})"
    ) from unknown


def _tags(identity: Identity) -> list[str]:
    dim = identity.arguments.get("dim")
    return [identity.architecture.name, *([] if dim is None else [f"{dim}dim"])]


def _options(held: SplitState) -> list[str]:
    return [f"{config.tokens} tokens, value {config.value}" for config in held.by_config()]


EXTRA_REGISTRY = ArchRegistry()
"""The architecture of this plug-in, for ``MAIN_REGISTRY.add(*EXTRA_REGISTRY)``."""

# A patched network has all the keys by which spandrel recognises it unpatched: this plug-in has to be asked before all
# others, of which spandrel_extra_arches may bring these two later.
_OTHERS = {"Restormer", "M3SNet", *(each.architecture.id for each in MAIN_REGISTRY)} - {"ExDA"}
EXTRA_REGISTRY.add(ArchSupport.from_architecture(ExDAArch(), before=tuple(sorted(_OTHERS))))


def install(*, ignore_duplicates: bool = False) -> list[ArchSupport]:
    """Lets ``spandrel.ModelLoader`` open this library's files; it asks this plug-in before its own architectures.

    Args:
        ignore_duplicates: do nothing, instead of raising an error, if the plug-in is installed already.

    Returns:
        The entries that were added to spandrel's registry.

    Raises:
        spandrel.DuplicateArchitectureError: if the plug-in is installed already, without ``ignore_duplicates``.
    """
    return MAIN_REGISTRY.add(*EXTRA_REGISTRY, ignore_duplicates=ignore_duplicates)
