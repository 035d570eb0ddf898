"""Small networks with layers that LoRA suits, and with layers that it does not."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, weight_norm


class TwoLayers(nn.Module):
    """Two convolutions of three channels with an activation between; ``first`` may be of any kind."""

    def __init__(self, first=None, second=None):
        super().__init__()
        self.first = first or nn.Conv2d(3, 3, 3, padding=1)
        self.second = second or nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.second(self.first(x).tanh())


class Standardised(nn.Conv2d):
    """Standardises its weight in each call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class Reading(TwoLayers):
    """Uses the first layer's weight once more, without calling the layer."""

    def forward(self, x):
        return super().forward(x) + F.conv2d(x, self.first.weight.sum((2, 3), keepdim=True))


class Casting(TwoLayers):
    """Reads the first layer's weight for its dtype, shape and device alone."""

    def forward(self, x):
        assert self.first.weight.shape[0] == 3
        return super().forward(x.to(self.first.weight.dtype).to(self.first.weight))


class InBlocks(nn.Module):
    """Calls one block twice."""

    def __init__(self):
        super().__init__()
        block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh())
        self.blocks = nn.ModuleList([block, block])

    def forward(self, x):
        return self.blocks[1](self.blocks[0](x))


def shared():
    layer = nn.Conv2d(3, 3, 3, padding=1)
    return TwoLayers(layer, layer)


def shared_linear():
    layer = nn.Linear(12, 12)
    return nn.Sequential(layer, nn.Tanh(), nn.ModuleDict({"again": layer})["again"])


def tied():
    net = TwoLayers()
    net.second.weight = net.first.weight
    return net


def in_one_memory():
    """Two parameters, the second of which holds a part of the first."""
    net = TwoLayers(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 3, 1)).double()
    net.second.weight = nn.Parameter(net.first.weight.data.view(-1)[:18].view(3, 6, 1, 1))
    return net


def hooked():
    net = TwoLayers()
    net.first.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return net


def replaced():
    net = TwoLayers()
    net.first.forward = lambda x: F.conv2d(x, net.first.weight.abs(), padding=1)
    return net


def spectral():
    return TwoLayers(nn.utils.spectral_norm(nn.Conv2d(3, 3, 3, padding=1)))


def weight_normed():
    return TwoLayers(weight_norm(nn.Conv2d(3, 3, 3, padding=1)))


def parametrized():
    return TwoLayers(parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1)))


EXACT = {
    "reflect": lambda: TwoLayers(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")),
    "circular": lambda: TwoLayers(nn.Conv2d(3, 3, (3, 5), padding=(1, 2), padding_mode="circular")),
    "replicate": lambda: TwoLayers(nn.Conv2d(3, 3, 3, padding="same", padding_mode="replicate")),
    "dilated": lambda: TwoLayers(nn.Conv2d(3, 3, 3, padding=2, dilation=2)),
    "dilated, same": lambda: TwoLayers(nn.Conv2d(3, 3, 3, padding="same", dilation=(2, 1))),
    "strided": lambda: TwoLayers(nn.Conv2d(3, 3, 4, stride=2, padding=1)),
    "shared": shared,
    "shared linear": shared_linear,
    "shared block": InBlocks,
    "casting": Casting,
}
"""Networks of which each convolution and linear layer can have LoRA."""

LEFT_OUT = {
    "tied": (tied, {"first": "its weight is also second.weight", "second": "its weight is also first.weight"}),
    "in one memory": (
        in_one_memory,
        {"first": "its weight is also second.weight", "second": "its weight is also first.weight"},
    ),
    "hooked": (hooked, {"first": "has hooks or a forward of its own"}),
    "replaced": (replaced, {"first": "has hooks or a forward of its own"}),
    "spectral norm": (spectral, {"first": "its weight is computed from other tensors"}),
    "weight norm": (weight_normed, {"first": "its weight is computed from other tensors"}),
    "parametrized": (parametrized, {"first": "its weight is computed from other tensors"}),
    "of its own class": (
        lambda: TwoLayers(Standardised(3, 3, 3, padding=1)),
        {"first": "is a Standardised with a Parameter as weight, which may use it otherwise than PyTorch's own layer"},
    ),
}
"""Networks, and the layers that cannot have LoRA, with the reasons."""


def made(build):
    """Builds a network in float64, in eval mode; its weights are always the same."""
    torch.manual_seed(0)
    return build().double().eval()
