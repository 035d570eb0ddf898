"""The concat-free path never builds a map of c+K channels, nor V' where the projection is folded."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import exda_primitives as exda

from ..maps import keys_and_values

# No other map has c + K = 7 or h * (c + K) = 21 rows by chance: qkv has 45, kv 30, the tokens 6.
HEADS, CHANNELS, TOKENS, SIZE = 3, 5, 2, (7, 11)
DIM, PIXELS = HEADS * CHANNELS, SIZE[0] * SIZE[1]
CONCATENATED = {CHANNELS + TOKENS, HEADS * (CHANNELS + TOKENS)}


class Recorder(TorchDispatchMode):
    """Keeps every tensor that an operation returns, so that no memory is reused and each storage counts once."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.tensors += [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return result

    def row_counts(self):
        """How many rows each tensor over all pixels has: by dimension (as channels per head) and in total."""
        counts = set()
        for tensor in self.tensors:
            shape = tuple(tensor.shape)
            if shape[-2:] == SIZE:
                shape = (*shape[:-2], PIXELS)
            if shape[-1:] == (PIXELS,):
                counts |= set(shape[1:-1]) | {torch.Size(shape[1:-1]).numel()}
        return counts

    def written(self):
        """Size of all memory that was allocated, in maps of (C, H, W)."""
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in self.tensors}
        return sum(storages.values()) / (DIM * PIXELS * self.tensors[0].element_size())

    def holds(self, value):
        return any(t.numel() == value.numel() and torch.allclose(t.reshape(value.shape), value) for t in self.tensors)


@pytest.fixture
def record(make_attention, make_maps):
    def record(family, backend, backward=False, **options):
        module = make_attention(family, DIM, HEADS, tokens=TOKENS, **options)
        maps = [x.requires_grad_() for x in make_maps(family, 1, DIM, *SIZE)]
        recorder = Recorder()
        with recorder, exda.backend(backend):
            output = module(*maps)
            if backward:
                output.sum().backward()
        with torch.no_grad():
            recorder.nonlinear = module.value(keys_and_values(module, maps)[1])
        return recorder

    return record


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("value", ["residual", "replace", "gelu"])
def test_no_concatenated_map_is_built(record, channel_family, value, position):
    literal = record(channel_family, "reference", backward=True, value=value, value_position=position)
    folded = record(channel_family, "torch", backward=True, value=value, value_position=position)
    assert literal.row_counts() >= CONCATENATED, "the recorder has to find it in the reference"
    assert not folded.row_counts() & CONCATENATED


@pytest.mark.parametrize("value", ["residual", "replace"])
def test_nonlinear_value_is_not_built(record, channel_family, value):
    literal = record(channel_family, "reference", value=value)
    assert literal.holds(literal.nonlinear), "the recorder has to find it in the reference"
    folded = record(channel_family, "torch", value=value)
    assert not folded.holds(folded.nonlinear)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("value", ["residual", "replace", "gelu", "sigmoid"])
def test_concat_free_path_writes_less_than_the_reference(record, channel_family, value, position):
    options = {"value": value, "value_position": position}
    folded, literal = (record(channel_family, backend, **options) for backend in ("torch", "reference"))
    assert folded.written() < literal.written()
