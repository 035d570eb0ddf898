"""``unchanged``: checks that a model and the global state are exactly as they were."""

import random
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def unchanged(model, *, random_numbers=True):
    """Fails unless model and global state are the same at the end of the block, down to the objects."""
    before, weights = _objects(model), _values(model)
    state = _global_state(random_numbers)
    yield
    after = _objects(model)
    assert after.keys() == before.keys()
    different = [name for name, found in after.items() if found is not before[name] and found != before[name]]
    assert not different, f"changed: {different}"
    different = [name for name, value in _values(model).items() if not torch.equal(value, weights[name])]
    assert not different, f"other values: {different}"
    assert _global_state(random_numbers) == state


def _objects(model):
    # Held, not only their ids: the id of a freed object is given to the next one.
    held = {}
    for name, module in model.named_modules(remove_duplicate=False):
        held[f"{name} itself"] = _Same(module)
        for key, attribute in vars(module).items():
            held[f"{name} attribute {key}"] = _Same(attribute)
            if isinstance(attribute, dict):
                held |= {f"{name} {key} {entry}": _Same(value) for entry, value in attribute.items()}
                held[f"{name} order of {key}"] = list(attribute)
        for key, parameter in module.named_parameters(recurse=False):
            held[f"{name} {key} state"] = (
                parameter.requires_grad,
                parameter.dtype,
                parameter.device,
                parameter.data_ptr(),
                _Same(parameter.grad),
            )
    return held


class _Same:
    """Equal only to itself by identity."""

    def __init__(self, held):
        self.held = held

    def __eq__(self, other):
        return self.held is other.held

    __hash__ = None


def _values(model):
    # Not the state dict: taking one calls hooks.
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in held.items() if not value.is_meta}


def _global_state(random_numbers):
    state = {
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "autocast": torch.is_autocast_enabled("cpu"),
    }
    if random_numbers:
        state["torch"] = torch.get_rng_state().tolist()
        state["numpy"] = [str(part) for part in np.random.get_state(legacy=True)]  # noqa: NPY002
        state["python"] = random.getstate()
    return state
