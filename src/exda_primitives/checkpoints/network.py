"""Finds the network inside its wrappers, and its weights and attentions by the names that they have without these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError
from ..patching.present import attentions
from ..primitives import ExDAModule
from ..primitives.description import Description
from ..surgery.wrappers import canonical, is_compiled, unwrap
from .split import SplitState, split_by_attentions

_AROUND = {"DataParallel": "module", "DistributedDataParallel": "module", "AveragedModel": "module"}
"""Name of a PyTorch class -> attribute that holds the network."""

_OF_LIGHTNING = ("net", "model", "module", "generator")
"""Attributes under which a LightningModule may hold its network, the likeliest first."""


def inside(model: nn.Module, verb: str) -> nn.Module:
    """Returns the network inside DataParallel, DDP, an averaged model, a compiled one or a LightningModule.

    Args:
        model: the network, bare or in any nesting of these.
        verb: what is done with it, for messages.

    Raises:
        WrappedModelError: for a scripted model, and for FSDP anywhere in it.
        TypeError: for anything but a module.
    """
    while isinstance(model, nn.Module) and (inner := _inner(model)) is not None:
        model = inner
    return unwrap(model, verb)[0]


def _inner(model: nn.Module) -> nn.Module | None:
    if is_compiled(model):
        return model.get_submodule("_orig_mod")
    for kind in type(model).__mro__:
        # By class name, so that torch.distributed and Lightning need not be imported.
        if kind.__module__.startswith("torch.") and kind.__name__ in _AROUND:
            return model.get_submodule(_AROUND[kind.__name__])
        if kind.__name__ == "LightningModule" and kind.__module__.partition(".")[0] in (
            "lightning",
            "pytorch_lightning",
        ):
            return next((m for m in (model._modules.get(name) for name in _OF_LIGHTNING) if m is not None), None)
    return None


def state_of(model: nn.Module, *, whole: bool = False) -> dict[str, Tensor]:
    """Returns the tensors of a model's state dict by their canonical names; they share the model's memory.

    Raises:
        CheckpointError: with ``whole``, if the state dict holds anything besides, see ``tensors_in``.
    """
    return tensors_in(model.state_dict(), whole=whole)


def tensors_in(state: Mapping[str, Any], *, whole: bool) -> dict[str, Tensor]:
    """Returns the tensors of a state dict by their canonical names.

    Raises:
        CheckpointError: with ``whole``, if the state dict holds anything besides, which files of tensors would lose.
            (None says that there is nothing.)
    """
    others = {name: each for name, each in state.items() if not (each is None or isinstance(each, Tensor))}
    if whole and others:
        name, each = next(iter(others.items()))
        raise CheckpointError(
            f"{canonical(name)}: is a {type(each).__name__} in the model's state dict, of which only tensors are saved "
            f"and loaded here. Let its module's get_extra_state return a tensor, or use torch.save and load_state_dict."
        )
    return {canonical(name): each for name, each in state.items() if isinstance(each, Tensor)}


def attentions_of(model: nn.Module, *, aliases: bool = False) -> Mapping[str, ExDAModule]:
    """Returns every ExDA attention of a model by its canonical name; with ``aliases``, by all of its names."""
    return {canonical(name): module for name, module in attentions(model, aliases=aliases).items()}


def parts_of(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> SplitState:
    """Divides a model's weights into the host's and ExDA's; ``state`` is its state dict, if already at hand."""
    attentions = {
        name: Description(module.config, built_in=not module.replaces_host)
        for name, module in attentions_of(model, aliases=True).items()
    }
    return split_by_attentions(state_of(model) if state is None else state, attentions)
