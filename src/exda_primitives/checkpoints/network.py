"""The network inside of what it is wrapped in, its weights under the names that it has without."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..patching.present import attentions
from ..primitives import ExDAModule
from ..primitives.description import Description
from ..surgery.wrappers import canonical, is_compiled, unwrap
from .described import Described, told_apart

_AROUND = {"DataParallel": "module", "DistributedDataParallel": "module", "AveragedModel": "module"}
"""Class of PyTorch -> the attribute with the network."""

_OF_LIGHTNING = ("net", "model", "module", "generator")
"""Under which attribute a LightningModule holds its network, the likelier first."""


def inside(model: nn.Module, verb: str) -> nn.Module:
    """The network inside of DataParallel, DDP, an averaged model, a compiled one and a LightningModule.

    Args:
        model: the network, however it is wrapped.
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
        # By name: what nothing uses stays unloaded.
        if kind.__module__.startswith("torch.") and kind.__name__ in _AROUND:
            return model.get_submodule(_AROUND[kind.__name__])
        if kind.__name__ == "LightningModule" and kind.__module__.partition(".")[0] in (
            "lightning",
            "pytorch_lightning",
        ):
            return next((m for m in (model._modules.get(name) for name in _OF_LIGHTNING) if m is not None), None)
    return None


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model's state dict by their canonical names; they share the model's memory."""
    return {canonical(name): each for name, each in model.state_dict().items() if isinstance(each, Tensor)}


def attentions_of(model: nn.Module, *, aliases: bool = False) -> Mapping[str, ExDAModule]:
    """Every ExDA attention of a model by its canonical name, or with ``aliases`` by all its names there."""
    return {canonical(name): module for name, module in attentions(model, aliases=aliases).items()}


def parts_of(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> Described:
    """The weights of a model, told apart; ``state`` where they are gathered already."""
    attentions = {
        name: Description(module.config, built_in=not module.replaces_host)
        for name, module in attentions_of(model, aliases=True).items()
    }
    return told_apart(state_of(model) if state is None else state, attentions)
