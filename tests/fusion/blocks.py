"""Transformer blocks as repositories write them: those that are fused (and into which steps), and look-alikes."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from tests.patching.hosts import MDTA, Cross, Histogram, Renamed, depthwise
from tests.patching.lookalikes import ReLU
from tests.patching.spectral import Spectral
from torch import nn

import exda_primitives as exda

BOTH_STEPS = ["attention_step", "gated_step"]
"""The steps of a Restormer block that is computed whole, by the names of their functions."""
ATTENTION, GATED, ANY = "attention", "gated feed-forward", "any function"


class WithBias(nn.Module):
    """Restormer's layer normalisation, on pixels as rows (B, H*W, C)."""

    eps = 1e-5

    def __init__(self, dim=8):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)
        self.bias = nn.Parameter(torch.randn(dim))

    def forward(self, x):
        rows = rearrange(x, "b c h w -> b (h w) c")
        return rearrange(self.on_rows(rows), "b (h w) c -> b c h w", h=x.shape[2])

    def on_rows(self, x):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class BiasFree(WithBias):
    def __init__(self, dim=8):
        super().__init__(dim)
        del self.bias

    def on_rows(self, x):
        return x / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + self.eps) * self.weight


class SmallEps(WithBias):
    eps = 1e-6


class Within(nn.Module):
    """A norm that its child computes."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


class Permuted(nn.LayerNorm):
    """PyTorch's ``LayerNorm``, on a permuted map."""

    def __init__(self, dim=8, **options):
        super().__init__(dim, **options)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class InFloat32(WithBias):
    """Standardises in float32, as for networks in half precision."""

    def on_rows(self, x):
        return F.layer_norm(x.float(), x.shape[-1:]).to(x.dtype) * self.weight + self.bias


class NoParameters(nn.Module):
    """Histoformer's norms: their constructors create no parameters."""

    def __init__(self, subtract_mean=True):
        super().__init__()
        self.subtract_mean = subtract_mean

    def forward(self, x):
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
        return (x - mean if self.subtract_mean else x) / torch.sqrt(variance + 1e-5)


class Unbiased(WithBias):
    """Divides the sum of squares by C - 1."""

    def on_rows(self, x):
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + self.eps) * self.weight + self.bias


class EpsOutside(WithBias):
    def on_rows(self, x):
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + self.eps)


class RootMeanSquare(BiasFree):
    def on_rows(self, x):
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class NoisyInTraining(WithBias):
    def on_rows(self, x):
        return super().on_rows(x) * (1 + self.training * torch.rand(()))


class FeedForward(nn.Module):
    """Restormer's gated feed-forward, under its names."""

    def __init__(self, dim=8, hidden=12, bias=False, local=depthwise):
        super().__init__()
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = local(2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x):
        return self.project_out(self.gate(*self.dwconv(self.project_in(x)).chunk(2, dim=1)))

    def gate(self, first, second):
        return F.gelu(first) * second


class OutputFirst(FeedForward):
    """Other names in another order, a module as activation, and hidden = C / 2, so that shapes are ambiguous."""

    def __init__(self):
        super().__init__(hidden=4)
        self.act = nn.GELU()
        layers = self._modules
        self._modules = {"fc2": layers["project_out"], "act": self.act, "dw": layers["dwconv"]}
        self._modules["fc1"] = layers["project_in"]

    def forward(self, x):
        first, second = self.dw(self.fc1(x)).tensor_split(2, dim=1)
        return self.fc2(second * self.act(first))


class Tanh(FeedForward):
    def gate(self, first, second):
        return F.gelu(first, approximate="tanh") * second


class Swapped(FeedForward):
    def gate(self, first, second):
        return first * F.gelu(second)


class SimpleGate(FeedForward):
    def gate(self, first, second):
        return first * second


class Dropout(FeedForward):
    """Drops outputs in training mode."""

    def __init__(self, rate=0.5):
        super().__init__()
        self.drop = nn.Dropout(rate)

    def forward(self, x):
        return self.drop(super().forward(x))


class Scaled(FeedForward):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.scale * super().forward(x)


def reflecting(channels, bias):
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias, padding_mode="reflect")


class Block(nn.Module):
    """Restormer's transformer block, under its names."""

    def __init__(self, norm=WithBias, attention=MDTA, ffn=FeedForward):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.ffn = norm(), attention(), norm(), ffn()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class ChannelsLast(nn.Module):
    """One step of a block, on maps (B, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(8), Spectral(8)

    def forward(self, x):
        return x + self.attn(self.norm(x))


class Lists(nn.Module):
    """A block with its norms in a list and its functions in a dictionary."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([WithBias(), BiasFree()])
        self.mixers = nn.ModuleDict({"channels": MDTA(), "ffn": FeedForward()})

    def forward(self, x):
        for norm, mixer in zip(self.norms, self.mixers.values(), strict=True):
            x = mixer(norm(x)) + x
        return x


class Pixels(nn.Module):
    """A function of a map that is neither a known attention nor a gated feed-forward."""

    def __init__(self, dim=8):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x):
        return x.softmax(1) * self.conv(x)


class Four(nn.Module):
    """Four steps, as X-Restormer's: attention over channels and over pixels, each with a feed-forward."""

    def __init__(self):
        super().__init__()
        self.channel_attn, self.channel_ffn = MDTA(), FeedForward(bias=True)
        self.spatial_attn, self.spatial_ffn = Pixels(), FeedForward()
        self.norm1, self.norm2, self.norm3, self.norm4 = WithBias(), WithBias(), BiasFree(), Within(WithBias())

    def forward(self, x):
        x = x + self.channel_attn(self.norm1(x))
        x = x + self.channel_ffn(self.norm2(x))
        x = x + self.spatial_attn(self.norm3(x))
        return x + self.spatial_ffn(self.norm4(x))


class FeedForwardFirst(Block):
    def forward(self, x):
        x = x + self.ffn(self.norm2(x))
        return x + self.attn(self.norm1(x))


class AttentionAlone(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attn = WithBias(), MDTA()

    def forward(self, x):
        return self.attn(self.norm(x)).add(x)


class Idle(Block):
    """A block with identities that it calls, and with a child that it never calls."""

    def __init__(self):
        super().__init__()
        self.drop_path, self.shortcut, self.unused = nn.Identity(), nn.Identity(), nn.ReLU()

    def forward(self, x):
        x = self.shortcut(x) + self.drop_path(self.attn(self.norm1(x)))
        return self.shortcut(x) + self.drop_path(self.ffn(self.norm2(x)))


class InTheBlock(Block):
    """The block itself permutes maps for PyTorch's norm."""

    def __init__(self):
        super().__init__(norm=partial(nn.LayerNorm, 8))

    def forward(self, x):
        x = x + self.attn(self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return x + self.ffn(self.norm2(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class PostNorm(Block):
    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.ffn(x))


class NormOfOutput(Block):
    def forward(self, x):
        x = x + self.norm1(self.attn(x))
        return x + self.norm2(self.ffn(x))


class LayerScale(Block):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        x = x + self.gamma * self.attn(self.norm1(x))
        return x + self.gamma * self.ffn(self.norm2(x))


class Half(Block):
    def forward(self, x):
        x = x + 0.5 * self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class NoResidual(Block):
    def forward(self, x):
        x = self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class SharedNorm(Block):
    def __init__(self):
        super().__init__()
        self.norm2 = self.norm1


class DropPath(nn.Module):
    def forward(self, x):
        return x * (torch.rand(len(x), 1, 1, 1, dtype=x.dtype) > 0.5) if self.training else x


class DropPaths(Block):
    def __init__(self):
        super().__init__()
        self.drop_path = DropPath()

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.ffn(self.norm2(x)))


class DropsByItself(Block):
    def forward(self, x):
        x = x + F.dropout(self.attn(self.norm1(x)), 0.5, self.training)
        return x + self.ffn(self.norm2(x))


class RarelySkipped(Block):
    """Stochastic depth with a rate of 1e-6: it hardly ever changes an output."""

    def forward(self, x):
        return x if self.training and torch.rand(()) < 1e-6 else super().forward(x)


class Parallel(Block):
    def forward(self, x):
        return x + self.attn(self.norm1(x)) + self.ffn(self.norm2(x))


class OneNorm(Block):
    def forward(self, x):
        y = self.norm1(x)
        return x + self.attn(y) + self.ffn(self.norm2(y))


class ExtraConvolution(Block):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.conv(super().forward(x))


class ConvolutionBeside(ExtraConvolution):
    """Applies the convolution by ``F.conv2d``: no module call reveals it."""

    def forward(self, x):
        return Block.forward(self, x) + F.conv2d(x, self.conv.weight)


class TwoArguments(Block):
    def forward(self, x, guide):
        return super().forward(x + guide)


class OptionalArgument(Block):
    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


class KeywordOnly(Block):
    def forward(self, *, x):
        return super().forward(x)


class Buffer(Block):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return self.scale * super().forward(x)


class Windows(Block):
    """The attention sees windows of 64 x 64; on smaller maps this is exactly a block without windows."""

    def forward(self, x):
        y = self.norm1(x)
        windows = [self.attn(part) for rows in y.split(64, dim=2) for part in rows.split(64, dim=3)]
        if len(windows) == 1:
            return Block.forward(self, x)
        across = -(-x.shape[3] // 64)
        rows = [torch.cat(windows[start : start + across], dim=3) for start in range(0, len(windows), across)]
        x = x + torch.cat(rows, dim=2)
        return x + self.ffn(self.norm2(x))


class OneWindow(Block):
    """Halves maps larger than 64 pixels a side for the attention; on smaller ones this is a usual block."""

    def forward(self, x):
        if max(x.shape[2:]) <= 64:
            return super().forward(x)
        small = F.avg_pool2d(x, 2, ceil_mode=True)
        x = x + F.interpolate(self.attn(self.norm1(small)), size=x.shape[2:])
        return x + self.ffn(self.norm2(x))


class ReturnsList(Block):
    def forward(self, x):
        return [super().forward(x), x]


class PreNorm(nn.Module):
    """Norm and attention without the residual, which the caller adds."""

    def __init__(self):
        super().__init__()
        self.norm, self.fn = WithBias(), MDTA()

    def forward(self, x):
        return self.fn(self.norm(x))


class Guided(Block):
    """A block with cross attention, which takes two maps."""

    def __init__(self):
        super().__init__(attention=Cross)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y)
        return x + self.ffn(self.norm2(x))


class Calls(Block):
    """Calls ``forward`` of its parts directly: hooks do not fire."""

    def forward(self, x):
        x = x + self.attn.forward(self.norm1.forward(x))
        return x + self.ffn.forward(self.norm2.forward(x))


def forward_replaced():
    block = Block()
    block.forward = partial(block.forward)
    return block


def frozen_block():
    return Block().requires_grad_(False)


RESTORMER = (("norm1", "attn", ATTENTION), ("norm2", "ffn", GATED))
FFN_AS_ANY_FUNCTION = (("norm1", "attn", ATTENTION), ("norm2", "ffn", ANY))

# Blocks that are fused, and the steps (norm, function, kind of function) that are recognised.
FUSED = {
    "restormer": (Block, RESTORMER),
    "bias-free": (partial(Block, BiasFree), RESTORMER),
    "eps-1e-6": (partial(Block, SmallEps), RESTORMER),
    "norm-is-a-child": (partial(Block, lambda: Within(BiasFree())), RESTORMER),
    "layer-norm-permuted": (partial(Block, Permuted), RESTORMER),
    "layer-norm-without-bias": (partial(Block, partial(Permuted, bias=False)), RESTORMER),
    "layer-norm-in-float32": (partial(Block, InFloat32), RESTORMER),
    "norm-without-parameters": (partial(Block, NoParameters), RESTORMER),
    "norm-without-parameters-or-mean": (partial(Block, partial(NoParameters, False)), RESTORMER),
    "biases": (partial(Block, WithBias, partial(MDTA, bias=True), partial(FeedForward, bias=True)), RESTORMER),
    "attention-renamed": (partial(Block, attention=Renamed), RESTORMER),
    "feed-forward-renamed": (partial(Block, ffn=OutputFirst), RESTORMER),
    "feed-forward-5x5": (partial(Block, ffn=partial(FeedForward, local=partial(depthwise, kernel=5))), RESTORMER),
    "feed-forward-dilated": (partial(Block, ffn=partial(FeedForward, local=partial(depthwise, dilation=2))), RESTORMER),
    "feed-forward-reflecting": (partial(Block, ffn=partial(FeedForward, local=reflecting)), RESTORMER),
    "feed-forward-without-drop": (partial(Block, ffn=partial(Dropout, 0.0)), RESTORMER),
    "feed-forward-drop": (partial(Block, ffn=Dropout), FFN_AS_ANY_FUNCTION),
    "feed-forward-drop-rare": (partial(Block, ffn=partial(Dropout, 1e-6)), FFN_AS_ANY_FUNCTION),
    "feed-forward-tanh": (partial(Block, ffn=Tanh), FFN_AS_ANY_FUNCTION),
    "feed-forward-swapped": (partial(Block, ffn=Swapped), FFN_AS_ANY_FUNCTION),
    "feed-forward-simple-gate": (partial(Block, ffn=SimpleGate), FFN_AS_ANY_FUNCTION),
    "feed-forward-scaled": (partial(Block, ffn=Scaled), FFN_AS_ANY_FUNCTION),
    "feed-forward-convolution": (partial(Block, ffn=partial(nn.Conv2d, 8, 8, 3, padding=1)), FFN_AS_ANY_FUNCTION),
    "histoformer": (partial(Block, NoParameters, Histogram), (("norm1", "attn", ANY), ("norm2", "ffn", GATED))),
    "lists": (Lists, (("norms.0", "mixers.channels", ATTENTION), ("norms.1", "mixers.ffn", GATED))),
    "four-steps": (
        Four,
        (
            ("norm1", "channel_attn", ATTENTION),
            ("norm2", "channel_ffn", GATED),
            ("norm3", "spatial_attn", ANY),
            ("norm4", "spatial_ffn", GATED),
        ),
    ),
    "feed-forward-first": (FeedForwardFirst, (("norm2", "ffn", GATED), ("norm1", "attn", ATTENTION))),
    "attention-alone": (AttentionAlone, (("norm", "attn", ATTENTION),)),
    "idle-children": (Idle, RESTORMER),
    "frozen": (frozen_block, RESTORMER),
}

# Blocks that are left alone, and what the reason given for it matches.
LEFT_ALONE = {
    "norm-in-the-block": (InTheBlock, "could not be probed .*RuntimeError"),
    "norm-unbiased": (partial(Block, Unbiased), "norm1 is no layer normalisation"),
    "norm-eps-outside": (partial(Block, EpsOutside), "norm1 is no layer normalisation"),
    "norm-root-mean-square": (partial(Block, RootMeanSquare), "norm1 is no layer normalisation"),
    "norm-noisy-in-training": (partial(Block, NoisyInTraining), "norm1 is no layer normalisation"),
    "group-norm": (partial(Block, partial(nn.GroupNorm, 1, 8)), "norm1 is no layer normalisation"),
    "batch-norm": (partial(Block, partial(nn.BatchNorm2d, 8)), "norm1 is no layer normalisation"),
    "post-norm": (PostNorm, r"does not compute x \+ norm1\(attn\(x\)\)"),
    "norm-of-output": (NormOfOutput, "attn is no layer normalisation"),
    "layer-scale": (LayerScale, r"parameters or buffers of its own \(gamma\)"),
    "half": (Half, r"does not compute x \+ attn\(norm1\(x\)\) \+ ffn\(norm2\(x\)\), step by step"),
    "no-residual": (NoResidual, "does not compute"),
    "shared-norm": (SharedNorm, "norm1, attn, norm1, ffn"),
    "drop-path": (DropPaths, "norm1, attn, drop_path, norm2, ffn, drop_path"),
    "drops-by-itself": (DropsByItself, "does not compute .* in training mode"),
    "rarely-skipped": (RarelySkipped, "does not compute .* in training mode"),
    "parallel": (Parallel, "does not compute"),
    "one-norm": (OneNorm, "does not compute"),
    "extra-convolution": (ExtraConvolution, "norm1, attn, norm2, ffn, conv"),
    "convolution-beside": (ConvolutionBeside, "norm1, attn, norm2, ffn: expected"),
    "two-arguments": (TwoArguments, r"forward takes \(x, guide\)"),
    "optional-argument": (OptionalArgument, r"forward takes \(x, mask=None\)"),
    "keyword-only": (KeywordOnly, r"forward takes \(x\)"),
    "buffer": (Buffer, r"parameters or buffers of its own \(scale\)"),
    "windows": (Windows, "does not compute|calls"),
    "one-window": (OneWindow, "does not compute"),
    "returns-list": (ReturnsList, "does not compute"),
    "pre-norm": (PreNorm, r"does not compute x \+ fn\(norm\(x\)\)"),
    "channels-last": (ChannelsLast, "could not be probed .*RuntimeError"),
    "cross": (Guided, "could not be probed .*TypeError"),
    "calls-forward": (Calls, "none of its parts"),
    "forward-replaced": (forward_replaced, "forward was replaced on the instance"),
}

# Blocks without a known attention: they are not even examined.
UNKNOWN = {"relu": partial(Block, attention=ReLU), "convolution": partial(Block, attention=partial(nn.Conv2d, 8, 8, 1))}


class Net(nn.Module):
    """Convolution, blocks of 8 channels, convolution: ``blocks.0``, ``blocks.1``, ..."""

    def __init__(self, *blocks):
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image):
        return image + self.tail(self.blocks(self.head(image)))


def two_blocks():
    return Net(Block(), Block(BiasFree))


def small_block(norm=WithBias, bias=False):
    """A block with as few channels as its heads allow: the interpreter takes time for every channel."""
    return Block(partial(norm, 4), partial(MDTA, 4, bias=bias), partial(FeedForward, 4, 3, bias))


def image(height=5, width=7, batch=2, dtype=torch.float32):
    return torch.rand(batch, 3, height, width, dtype=dtype)


def feature(height=5, width=7, batch=2, dtype=torch.float32, dim=4):
    return torch.randn(batch, dim, height, width, dtype=torch.float64).to(dtype)


@torch.no_grad()
def patch_randomly(model):
    """Patches the model, adds random numbers to its new parameters, so that none is 0 any more, and returns it."""
    exda.patch(model)
    for parameter in exda.new_parameters(model):
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model
