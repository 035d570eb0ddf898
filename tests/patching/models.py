"""Small networks that hold attentions."""

import torch
from torch import nn

import exda_primitives as exda

from .hosts import MDTA


class Block(nn.Module):
    """``x + attn(norm(x))``; a cross attention gets the map shifted by a pixel as its second one."""

    def __init__(self, attention, dim=8, inputs=1):
        super().__init__()
        self.inputs = inputs
        self.norm = nn.GroupNorm(1, dim)
        self.attn = attention

    def forward(self, x):
        normed = self.norm(x)
        return x + self.attn(*(normed, normed.roll(1, -1))[: self.inputs])


class Net(nn.Module):
    """Convolution, a block for every attention, convolution: ``blocks.0.attn``, ``blocks.1.attn``, ..."""

    def __init__(self, *attentions, dim=8, inputs=1):
        super().__init__()
        self.head = nn.Conv2d(3, dim, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(attention, dim, inputs) for attention in attentions))
        self.tail = nn.Conv2d(dim, 3, 3, padding=1)

    def forward(self, image):
        return image + self.tail(self.blocks(self.head(image)))


def two_blocks():
    return Net(MDTA(), MDTA())


def restormer():
    """A small Restormer, whose module names make stages and patterns known."""
    return exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 2, 4, 8])


def image(height=16, width=24, batch=2, dtype=torch.float32):
    return torch.rand(batch, 3, height, width, dtype=dtype)


@torch.no_grad()
def train_new_parameters(model):
    """Stands in for training: adds noise to every new parameter, so that each affects the output."""
    for parameter in exda.new_parameters(model):
        parameter.add_(torch.randn_like(parameter), alpha=0.5)


def patched_and_trained(make):
    model = make().eval()
    exda.patch(model)
    train_new_parameters(model)
    return model
