"""Loads weights into a model, all or none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError, ExDAError, some_of
from ..primitives import ExDAModule
from ..surgery.wrappers import canonical
from .before import Before, TensorSlot, slots_of
from .contents import Versions
from .network import parts_of, state_of, tensors_in
from .split import is_extra_state


def check_fit(tensors: Mapping[str, Tensor], into: Mapping[str, Tensor], source: object) -> None:
    """Raises CheckpointError unless both have equal names and shapes, and floating-point dtypes at the same names.

    Extra states of modules are compared by name alone.
    """
    missing, unexpected = sorted(into.keys() - tensors.keys()), sorted(tensors.keys() - into.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{source}: does not fit the model. {_some('missing in the file', missing)}"
            f"{_some('not in the model', unexpected)}"
        )
    for name, tensor in tensors.items():
        if is_extra_state(name):
            # Its module decides what it accepts.
            continue
        if tensor.shape != into[name].shape:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, in the model it is {tuple(into[name].shape)}."
            )
        if tensor.is_floating_point() != into[name].is_floating_point():
            raise CheckpointError(f"{source}: {name} holds {tensor.dtype}, in the model it is {into[name].dtype}.")


def copy_into(
    model: nn.Module, tensors: Mapping[str, Tensor], source: object, versions: Versions | None = None
) -> None:
    """Loads entries of a state dict by the model's ``load_state_dict``, so that hooks run and extra states are set.

    The model's tensors keep object, dtype and device. Those on the meta device, which have no memory, are replaced by
    new ones of the same dtype, and modules that share one share the new one. On any error, of whatever kind, the model
    is as it was.

    Args:
        model: the model, without wrappers.
        tensors: canonical name -> value; they have passed ``check_fit``. Of the host's entries, others keep their
            values and their modules' extra states are not set; what ExDA added and is not among them keeps its values.
        source: where the values are from, for messages.
        versions: the versions of the modules that the values are from; by default those that the model has.

    Raises:
        CheckpointError: if the model's tensors cannot be written to, or its hooks or extra states raise an error.
    """
    try:
        before = Before(model, tensors.keys())
        try:
            _give_memory(model, tensors)
            _load(model, tensors, versions)
        except BaseException:
            before.put_back()
            # Hooks and extra states may have changed more, in place: loading the values of before changes it back.
            with suppress(Exception):
                _load(model, {name: state_of(model)[name] for name in tensors} | before.extra_states)
            before.put_back()
            raise
    except ExDAError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{source}: {type(model).__name__} did not load it ({_line(error)}); nothing was loaded. Its tensors "
            f"have to be writable, and its modules' hooks and set_extra_state have to accept what the file holds: load "
            f"it before the model is quantised, expanded or otherwise changed."
        ) from error


def _load(model: nn.Module, tensors: Mapping[str, Any], versions: Versions | None = None) -> None:
    """Calls ``load_state_dict`` with these entries, and with those that modules ask for besides."""
    state = model.state_dict()
    entries: OrderedDict[str, Any] = OrderedDict(_entries(model, state, tensors))
    own: Versions | None = getattr(state, "_metadata", None)
    if own is not None:
        # PyTorch passes them on to the modules, some of which convert what an older version of theirs has written.
        known = own if versions is None else {name: versions.get(canonical(name), {}) for name in own}
        entries._metadata = known  # type: ignore[attr-defined]
    found = model.load_state_dict(entries, strict=entries.keys() == state.keys())
    # Not strict if only a part is loaded, of which all has to be taken. (An override may return nothing.)
    left = [*getattr(found, "unexpected_keys", ()), *entries.keys() & {*getattr(found, "missing_keys", ())}]
    if left:
        raise RuntimeError(f"load_state_dict did not take {some_of(left)}")


def _entries(model: nn.Module, state: Mapping[str, Any], tensors: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the entries to load: ``tensors``, and of the others, as they are in the model, those that must be there.

    These are what ExDA added, which attentions fill in with a warning, and what the host's own hooks may look for. No
    more, since they are written to: a part is also loaded into hosts that cannot be.
    """
    host = parts_of(model, tensors_in(state, whole=False)).host
    slots = {slot.full_name: id(slot.tensor) for slot in slots_of(model)}
    asked = tuple(
        canonical(f"{name}.") if name else ""
        for name, module in model.named_modules(remove_duplicate=False)
        if _converts(module)
    )
    # A file may hold a shared attention's parameters under one of its names alone.
    shared = {slots[name]: tensor for name, tensor in tensors.items() if name in slots}
    for key, own in state.items():
        name = canonical(key)
        if name in tensors:
            yield key, tensors[name]
        elif own is None or (isinstance(own, Tensor) and name not in host) or name.startswith(asked):
            yield key, shared.get(slots.get(name, 0), own)


def _converts(module: nn.Module) -> bool:
    """Whether a module's own code reads the entries of a state dict before they are loaded."""
    kind = type(module)
    overridden = (
        kind.load_state_dict is not nn.Module.load_state_dict
        or kind._load_from_state_dict is not nn.Module._load_from_state_dict
    )
    return bool(module._load_state_dict_pre_hooks) or (overridden and not isinstance(module, ExDAModule))


def _give_memory(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Replaces the tensors on the meta device that have a value by new ones with this value."""
    made: dict[int, Tensor] = {}
    without = [slot for slot in slots_of(model) if slot.tensor.is_meta]
    if not without:
        return
    for slot in [slot for slot in without if slot.full_name in tensors]:
        old = slot.tensor
        if id(old) not in made:
            new = tensors[slot.full_name].detach().to(old.dtype, copy=True)
            is_parameter = isinstance(old, nn.Parameter)
            made[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new
        _put(slot, made[id(old)])
    state = state_of(model)
    if still := [name for name in tensors if state[name].is_meta and not is_extra_state(name)]:
        raise RuntimeError(f"on the meta device, and named otherwise in the state dict: {some_of(still)}")


def _put(slot: TensorSlot, tensor: Tensor) -> None:
    if isinstance(tensor, nn.Parameter):
        slot.module._parameters[slot.name] = tensor
    else:
        slot.module._buffers[slot.name] = tensor


def _line(error: BaseException) -> str:
    # PyTorch lists its reasons in the lines after the first.
    lines = [line.strip() for line in str(error).splitlines()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"


def _some(what: str, names: list[str]) -> str:
    return f"{what.capitalize()}: {some_of(names)}. " if names else ""
