"""Ways in which people and libraries alter a convolution, and the plain convolution that each then equals.

Each function takes a convolution and returns its replacement and a function for the weight and bias of the equal plain
convolution. Call the latter only after the replacement was called: some weights are computed by hooks.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


class Adapter(nn.Module):
    """Adds a trained layer's output to that of a layer, which is named ``base_layer`` as in PEFT."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer, self.difference = base_layer, copy.deepcopy(base_layer)
        with torch.no_grad():
            for parameter in self.difference.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))

    def forward(self, x):
        return self.base_layer(x) + self.difference(x)


class Doubled(torch.Tensor):
    """A tensor subclass whose convolutions return twice the usual result."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        return 2 * out.as_subclass(torch.Tensor) if func is torch.conv2d else out


def _times(layer, weight, bias):
    """A function that returns the layer's current weight and bias times these factors."""
    return lambda: (weight * layer.weight, None if layer.bias is None else bias * layer.bias)


def forward_hook(layer):
    layer.register_forward_hook(lambda _, inputs, output: 2 * output)
    return layer, _times(layer, 2, 2)


def forward_pre_hook(layer):
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 2,))
    return layer, _times(layer, 0.5, 1)


def replaced_forward(layer):
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)
    return layer, _times(layer, 2, 2)


def subclass(layer):
    class Doubling(type(layer)):
        def forward(self, x):
            return 2 * super().forward(x)

    layer.__class__ = Doubling
    return layer, _times(layer, 2, 2)


def sequence(layer):
    return nn.Sequential(layer, Double()), _times(layer, 2, 2)


def adapter(layer):
    around = Adapter(layer)
    other = around.difference
    return around, lambda: (layer.weight + other.weight, None if layer.bias is None else layer.bias + other.bias)


def parametrised(layer):
    parametrize.register_parametrization(layer, "weight", Double())
    return layer, _times(layer, 1, 1)


def parametrised_bias(layer):
    parametrize.register_parametrization(layer, "weight" if layer.bias is None else "bias", Double())
    return layer, _times(layer, 1, 1)


def weight_norm(layer):
    parametrizations.weight_norm(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(1.5)
    return layer, _times(layer, 1, 1)


def weight_norm_by_hook(layer):
    nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.weight_g.mul_(1.5)
    return layer, _times(layer, 1, 1)


def spectral_norm(layer):
    parametrizations.spectral_norm(layer)
    return layer, _times(layer, 1, 1)


def spectral_norm_by_hook(layer):
    nn.utils.spectral_norm(layer)
    return layer, _times(layer, 1, 1)


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.5)
    # As a training step does: from then on, only the pruning hook computes the weight.
    with torch.no_grad():
        layer.weight_orig.mul_(2)
    return layer, _times(layer, 1, 1)


def tensor_subclass(layer):
    plain = layer.weight.detach()
    layer.weight = nn.Parameter(plain.as_subclass(Doubled))
    return layer, lambda: (2 * plain, None if layer.bias is None else 2 * layer.bias)


ALTERATIONS = [
    forward_hook,
    forward_pre_hook,
    replaced_forward,
    subclass,
    sequence,
    adapter,
    parametrised,
    parametrised_bias,
    weight_norm,
    weight_norm_by_hook,
    spectral_norm,
    spectral_norm_by_hook,
    pruned,
    tensor_subclass,
]
