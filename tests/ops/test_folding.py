"""The output projection is folded into the attention only if that cannot be observed; otherwise it is called."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import exda_primitives as exda


def output_projection(module):
    return module.part(module.PARTS[-1])


def forward_hook(module):
    output_projection(module).register_forward_hook(lambda conv, inputs, output: 2 * output)


def forward_hook_with_arguments(module):
    hook = lambda conv, inputs, keywords, output: 2 * output  # noqa: E731
    output_projection(module).register_forward_hook(hook, with_kwargs=True)


def forward_pre_hook(module):
    output_projection(module).register_forward_pre_hook(lambda conv, inputs: (inputs[0] + 1,))


def full_backward_hook(module):
    output_projection(module).register_full_backward_hook(lambda conv, inner, outer: tuple(2 * g for g in inner))


def full_backward_pre_hook(module):
    output_projection(module).register_full_backward_pre_hook(lambda conv, outer: tuple(2 * g for g in outer))


def wrapper(module):
    class LowRank(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv, self.delta = conv, copy.deepcopy(conv)

        def forward(self, x):
            return self.conv(x) + self.delta(x)

    setattr(module, module.PARTS[-1], LowRank(output_projection(module)))


def sequence(module):
    setattr(module, module.PARTS[-1], nn.Sequential(output_projection(module), nn.Tanh()))


def subclass(module):
    class Doubling(type(output_projection(module))):
        def forward(self, x):
            return 2 * super().forward(x)

    output_projection(module).__class__ = Doubling


def weight_norm(module):
    parametrizations.weight_norm(output_projection(module))


def pruned(module):
    prune.l1_unstructured(output_projection(module), "weight", amount=0.5)


def replaced_forward(module):
    project = output_projection(module).forward
    output_projection(module).forward = lambda x: 2 * project(x)


ALTERATIONS = [
    forward_hook,
    forward_hook_with_arguments,
    forward_pre_hook,
    full_backward_hook,
    full_backward_pre_hook,
    wrapper,
    sequence,
    subclass,
    weight_norm,
    pruned,
    replaced_forward,
]
VALUES = pytest.mark.parametrize(
    ("value", "position"), [("residual", "before"), ("residual", "after"), ("gelu", "after"), ("none", "before")]
)


@pytest.fixture
def prepare(make_attention, make_maps):
    def prepare(family, value="residual", position="before"):
        module = make_attention(family, 6, 2, True, tokens=2, value=value, value_position=position)
        return module, make_maps(family, 2, 6, 7, 4)

    return prepare


@pytest.mark.parametrize("alter", ALTERATIONS, ids=lambda alter: alter.__name__)
def test_altered_projection_agrees_with_the_reference(family, alter, prepare, differentiate, relative_errors):
    module, maps = prepare(family)
    alter(module)
    errors = relative_errors(differentiate(module, maps, "torch"), differentiate(module, maps, "reference"))
    assert max(errors.values()) < 1e-12, errors


@VALUES
def test_hooked_projection_is_called_once_and_changes_nothing(family, value, position, prepare, differentiate):
    module, maps = prepare(family, value, position)
    expected = differentiate(module, maps, "torch")
    calls = []
    output_projection(module).register_forward_hook(lambda conv, inputs, output: calls.append(output))
    found = differentiate(module, maps, "torch")
    assert len(calls) == 1
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: name + text)


@VALUES
def test_removed_hook_folds_again(channel_family, value, position, prepare, monkeypatch):
    module, maps = prepare(channel_family, value, position)
    output_projection(module).register_forward_hook(lambda conv, inputs, output: output).remove()
    calls = []
    layer = type(output_projection(module))
    project = layer.forward
    monkeypatch.setattr(layer, "forward", lambda self, x: calls.append(self) or project(self, x))
    module(*maps)
    # With GELU between the aggregation and the projection, nothing can be folded.
    assert (output_projection(module) in calls) == (value == "gelu")


def test_hooked_host_projections_are_called(family, prepare):
    module, maps = prepare(family)
    plain = module(*maps)
    altered = copy.deepcopy(module)
    called = []
    for name in module.PARTS[1:-1]:
        getattr(altered, name).register_forward_hook(lambda conv, inputs, output, name=name: called.append(name))
    assert torch.equal(altered(*maps), plain)
    assert sorted(called) == sorted(module.PARTS[1:-1])


class Multiplications(TorchDispatchMode):
    """Counts multiplications. PyTorch's own counter would not do: it hooks all modules, so that nothing is folded."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        # PyTorch counts a multiplication and an addition for each.
        self.count += flop_registry.get(func.overloadpacket, lambda *_, **__: 0)(*args, out_val=result) // 2
        return result


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 3), (4, 4), (7, 3), (12, 12)])
@pytest.mark.parametrize(("value", "position"), [*VALUES.args[1], ("replace", "before"), ("gelu", "before")])
@torch.no_grad()
def test_no_more_multiplications_than_the_printed_formulas(value, position, size, hooked, make_attention, make_maps):
    """With 8 of 32 channels per head, folding is cheaper for some of these sizes, computing on maps for others."""
    module = make_attention("mdta", 32, 4, tokens=1, stride=1, value=value, value_position=position)
    if hooked:
        output_projection(module).register_forward_hook(lambda conv, inputs, output: output)
    maps = make_maps("mdta", 2, 32, *size)
    counts = {}
    for name in ("torch", "reference"):
        with exda.backend(name), Multiplications() as counter:
            module(*maps)
        counts[name] = counter.count
    assert 0 < counts["torch"] <= counts["reference"]
