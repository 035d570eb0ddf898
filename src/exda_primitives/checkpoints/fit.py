"""Loads weights into a model, all or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, some_of
from ..surgery.wrappers import canonical
from .network import state_of


class TensorSlot(NamedTuple):
    """A tensor's slot in a model: the module that holds it, its name there, and the tensor before it is replaced."""

    module: nn.Module
    name: str
    tensor: Tensor


def check_fit(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor], source: object) -> None:
    """Raises CheckpointError unless both have equal names and shapes, and floating-point dtypes at the same names."""
    missing, unexpected = sorted(into.keys() - tensors.keys()), sorted(tensors.keys() - into.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{source}: does not fit the model. {_some('missing in the file', missing)}"
            f"{_some('not in the model', unexpected)}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != into[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, in the model it is {tuple(into[name].shape)}."
            )
        if tensor.is_floating_point() != into[name].is_floating_point():
            raise CheckpointError(f"{source}: {name} holds {tensor.dtype}, in the model it is {into[name].dtype}.")


@torch.no_grad()
def copy_into(model: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Copies values into the model's own tensors, which keep object, dtype and device.

    Names and shapes have passed ``check_fit``. Tensors on the meta device, which have no memory, are replaced by new
    ones of the same dtype, and modules that share one share the new one. On any error, of whatever kind, all tensors
    are restored.

    Raises:
        CheckpointError: for a tensor of the model that cannot be written to.
    """
    state = state_of(model)
    solid = {name: tensor for name, tensor in tensors.items() if not state[name].is_meta}
    # For the way back: copies of the values, and the slots whose tensors were replaced.
    kept: dict[str, Tensor] = {}
    slots: list[TensorSlot] = []
    try:
        for name in solid:
            kept[name] = state[name].clone()
        for name, tensor in solid.items():
            state[name].copy_(tensor)
        for slot, tensor in _new_tensors(model, {n: t for n, t in tensors.items() if n not in solid}):
            slots.append(TensorSlot(slot.module, slot.name, slot.tensor))
            _put(slot, tensor)
    except BaseException as error:
        for slot in slots:
            _put(slot, slot.tensor)
        for name, tensor in kept.items():
            _restore(state[name], tensor)
        if isinstance(error, RuntimeError | NotImplementedError | TypeError):
            raise CheckpointError(
                f"{source}: the model's own tensors cannot be written to ({_line(error)}); nothing was loaded. Load it "
                f"before the model is quantised, expanded or otherwise changed."
            ) from error
        raise


def _new_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[tuple[TensorSlot, Tensor]]:
    """Yields every slot of a tensor to replace, and its replacement; slots of a shared tensor get the same one."""
    made: dict[int, Tensor] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        held: list[Mapping[str, Tensor | None]] = [module._parameters, module._buffers]
        for name, old in ((name, old) for each in held for name, old in each.items()):
            full_name = canonical(f"{prefix}.{name}" if prefix else name)
            if old is None or full_name not in tensors:
                continue
            if id(old) not in made:
                new = tensors[full_name].detach().to(old.dtype, copy=True)
                is_parameter = isinstance(old, nn.Parameter)
                made[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
            yield TensorSlot(module, name, old), made[id(old)]


def _put(slot: TensorSlot, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        slot.module._parameters[slot.name] = tensor
    else:
        slot.module._buffers[slot.name] = tensor


def _restore(tensor: Tensor, before: Tensor) -> None:
    try:
        tensor.copy_(before)
    except (RuntimeError, NotImplementedError, TypeError):
        # It could not be written to in the first place, so that it is unchanged.
        return


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _some(what: str, names: list[str]) -> str:
    return f"{what.capitalize()}: {some_of(names)}. " if names else ""
