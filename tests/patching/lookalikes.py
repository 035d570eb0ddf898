"""Look-alikes: modules with the names and shapes of Restormer's attention that compute something else."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .hosts import MDTA, depthwise


class Variant(MDTA):
    """MDTA split into ``mix`` (q, k, v, each (B, C, H, W)) and ``weigh`` (logits), for subclasses to override."""

    def forward(self, x):
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        return self.project_out(self.mix(q, k, v))

    def mix(self, q, k, v):
        rows = "b (head c) h w -> b head c (h w)"
        q, k, v = (rearrange(m, rows, head=self.num_heads) for m in (q, k, v))
        out = self.weigh(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature) @ v
        return out.flatten(1, 2)

    def weigh(self, logits):
        return logits.softmax(dim=-1)


class Plain(Variant):
    """The true attention on maps; each subclass changes only what its name or docstring says."""

    def mix(self, q, k, v):
        return super().mix(q, k, v).unflatten(-1, q.shape[2:])


class ReLU(Plain):
    def weigh(self, logits):
        return logits.relu()


class OtherAxis(Plain):
    def weigh(self, logits):
        return logits.softmax(dim=-2)


class TopK(Plain):
    def weigh(self, logits):
        kept, where = logits.topk(logits.shape[-1] // 2, dim=-1)
        return torch.full_like(logits, -torch.inf).scatter(-1, where, kept).softmax(dim=-1)


class FourTopK(Plain):
    """Sum of four softmaxes weighted by the learnt ``attn1`` to ``attn4``, the parameters of a four-mask top-k."""

    def __init__(self):
        super().__init__()
        for i in range(1, 5):
            self.register_parameter(f"attn{i}", nn.Parameter(torch.tensor([0.2])))

    def weigh(self, logits):
        shares = [logits.softmax(-1) * getattr(self, f"attn{i}") for i in range(1, 5)]
        return sum(shares)


class NoNorm(Plain):
    def mix(self, q, k, v):
        q, k, v = (rearrange(m, "b (head c) h w -> b head c (h w)", head=self.num_heads) for m in (q, k, v))
        return ((q @ k.mT * self.temperature).softmax(-1) @ v).reshape(len(v), -1, *self.size)

    def forward(self, x):
        self.size = x.shape[2:]
        return super().forward(x)


class ScaledLogits(Plain):
    """Logits multiplied by channels ** -0.5, as in attention over pixels."""

    def weigh(self, logits):
        return super().weigh(logits * logits.shape[-1] ** -0.5)


class Windowed(Plain):
    """The same attention within windows of side ``window``; the map is padded to a multiple of it."""

    window = 8
    pattern = "b c (y i) (x j) -> (b y x) c i j"

    def mix(self, q, k, v):
        height, width = q.shape[2:]
        size = self.window
        q, k, v = (F.pad(m, (0, -width % size, 0, -height % size)) for m in (q, k, v))
        grid = {"y": q.shape[2] // size, "x": q.shape[3] // size}
        q, k, v = (rearrange(m, self.pattern, **grid) for m in (q, k, v))
        there, back = self.pattern.split(" -> ")
        return rearrange(super().mix(q, k, v), f"{back} -> {there}", **grid)[..., :height, :width]


class LargeWindows(Windowed):
    """On maps smaller than a window, this is exactly the true attention."""

    window = 64


class Tiles(Plain):
    """The true attention on maps no larger than a tile; on larger ones, the average over overlapping tiles."""

    def __init__(self, side=384):
        super().__init__()
        self.side = side

    def mix(self, q, k, v):
        out, times = torch.zeros_like(v), torch.zeros_like(v)
        for rows in self.spans(v.shape[2]):
            for columns in self.spans(v.shape[3]):
                tile = ..., rows, columns
                out[tile] += super().mix(q[tile], k[tile], v[tile])
                times[tile] += 1
        return out / times

    def spans(self, length):
        side = min(self.side, length)
        return [slice(first, first + side) for first in (*range(0, length - side, side), length - side)]


class TilesOfOneImage(Tiles):
    """Accepts a batch of one image only, as public code for test-time local attention does."""

    def forward(self, x):
        assert len(x) == 1
        return super().forward(x)


class OneScale(Plain):
    """By scaled_dot_product_attention, whose scale is one number for all heads and gets no gradient."""

    def mix(self, q, k, v):
        size = q.shape[2:]
        q, k, v = (rearrange(m, "b (head c) h w -> b head c (h w)", head=self.num_heads) for m in (q, k, v))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        out = F.scaled_dot_product_attention(q, k, v, scale=float(self.temperature.detach().mean()))
        return out.flatten(1, 2).unflatten(-1, size)


class DetachedInput(Plain):
    """No gradient goes through q, k and v."""

    def forward(self, x):
        return super().forward(x.detach())


class Grid(Windowed):
    """Each window holds pixels that are a fixed step apart, not neighbours."""

    pattern = "b c (i y) (j x) -> (b y x) c i j"


class Rows(Plain):
    def mix(self, q, k, v):
        q, k, v = (rearrange(m, "b c h w -> (b h) c 1 w") for m in (q, k, v))
        height = self.height
        return rearrange(super().mix(q, k, v), "(b h) c 1 w -> b c h w", h=height)

    def forward(self, x):
        self.height = x.shape[2]
        return super().forward(x)


class Columns(Rows):
    def forward(self, x):
        return super().forward(x.mT).mT


class Pixels(Plain):
    """Attention over pixels, with channels as features."""

    def mix(self, q, k, v):
        size = q.shape[2:]
        q, k, v = (rearrange(m, "b (head c) h w -> b head (h w) c", head=self.num_heads) for m in (q, k, v))
        out = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(-1) @ v
        return rearrange(out, "b head (h w) c -> b (head c) h w", h=size[0])


class ValueIsQuery(Plain):
    """q and v are swapped: the value is q."""

    def mix(self, q, k, v):
        return super().mix(v, k, q)


class Noisy(Plain):
    def mix(self, q, k, v):
        return super().mix(q, k, v) + torch.randn_like(v)


class Branch(Plain):
    """A convolution beside the attention."""

    def __init__(self):
        super().__init__()
        self.branch = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return super().forward(x) + self.branch(x)


class PointwiseBranch(Branch):
    def __init__(self):
        super().__init__()
        self.branch = nn.Conv2d(8, 8, 1)


class DepthwiseBranch(Branch):
    def __init__(self):
        super().__init__()
        self.branch = depthwise(8)


class Prompt(Plain):
    def __init__(self):
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, x):
        return super().forward(x + self.prompt)


class NoTemperature(Plain):
    def __init__(self):
        super().__init__()
        del self.temperature
        self.temperature = 2.0


class ChannelTemperature(Plain):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(2, 4, 1))


class OddHeads(Plain):
    """Three temperatures for eight channels."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(3, 1, 1))


class RequiredArgument(Plain):
    def forward(self, x, size):
        return super().forward(x)[..., : size[0], : size[1]]


class OptionalArgument(Plain):
    def forward(self, x, mask=None):
        return super().forward(x if mask is None else x * mask)


class AnyArguments(Plain):
    def forward(self, *maps):
        return super().forward(sum(maps))


class KeywordArgument(Plain):
    def forward(self, *, x):
        return super().forward(x)


class Dense(Plain):
    def __init__(self):
        super().__init__()
        self.qkv_dwconv = nn.Conv2d(24, 24, 3, padding=1)


class Grouped(Plain):
    def __init__(self):
        super().__init__()
        self.qkv_dwconv = nn.Conv2d(24, 24, 3, padding=1, groups=3)


class Volume(Variant):
    """Three-dimensional, (B, C, D, H, W)."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv3d(8, 24, 1)
        self.qkv_dwconv = nn.Conv3d(24, 24, 3, padding=1, groups=24)
        self.project_out = nn.Conv3d(8, 8, 1)

    def mix(self, q, k, v):
        return super().mix(*(m.flatten(2, 3) for m in (q, k, v))).reshape(v.shape)


def wrapped_volume():
    host = Volume()
    for name in ("qkv", "qkv_dwconv", "project_out"):
        setattr(host, name, nn.Sequential(getattr(host, name)))
    return host


class Buffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(8, 1, 1))

    def forward(self, x):
        return super().forward(x * self.mask)


class ReturnsList(Plain):
    def forward(self, x):
        return [super().forward(x), x]


class ReturnsCropped(Plain):
    def forward(self, x):
        return super().forward(x)[..., 1:]


class ActiveDropout(Plain):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def weigh(self, logits):
        return self.drop(super().weigh(logits))


class BatchOfOne(Plain):
    def forward(self, x):
        return super().forward(x.reshape(1, *x.shape[1:]))


class AlphaTaken(Plain):
    def __init__(self):
        super().__init__()
        self.alpha = 1.0


class ValueTaken(Plain):
    def __init__(self):
        super().__init__()
        self.value = nn.Identity()


def forward_replaced():
    host = MDTA()
    host.forward = partial(host.forward)
    return host


def zero_projection():
    host = ReLU()
    nn.init.zeros_(host.project_out.weight)
    return host


# Look-alike and the pattern that the message of its refusal must match. The probe compares strips of 580 pixels, longer
# than test-time tiles of 384 * 1.5, and strips one pixel longer than the largest plausible number in the settings.
LOOKALIKES = {
    "relu": (ReLU, "output differs"),
    "relu-zero-projection": (zero_projection, "output differs"),
    "softmax-over-queries": (OtherAxis, "output differs"),
    "top-k": (TopK, "output differs"),
    "four-top-k": (FourTopK, r"one own parameter.*found temperature \(2, 1, 1\), attn1 \(1,\)"),
    "no-l2-norm": (NoNorm, "output differs"),
    "scaled-logits": (ScaledLogits, "output differs"),
    "windows": (Windowed, "output differs"),
    "windows-of-64": (LargeWindows, "output differs"),
    "tiles-of-384": (Tiles, r"output differs.* on \(1, 8, 2, 580\) in eval"),
    "tiles-of-one-image": (TilesOfOneImage, r"output differs.* on \(1, 8, 2, 580\) in eval"),
    "tiles-of-1536": (lambda: Tiles(1536), r"output differs.* on \(1, 8, 2, 1537\) in eval"),
    "one-scale-for-two-heads": (OneScale, "output differs"),
    "scale-without-gradient": (lambda: OneScale(num_heads=1), "no gradient reaches its temperature"),
    "input-without-gradient": (DetachedInput, "no gradient reaches its input"),
    "grid": (Grid, "output differs"),
    "rows": (Rows, "output differs"),
    "columns": (Columns, "output differs"),
    "pixels": (Pixels, "output differs"),
    "value-is-q": (ValueIsQuery, "output differs"),
    "noise-in-eval": (Noisy, "output differs"),
    "branch-3x3": (Branch, r"nothing else with parameters, found .*branch \(Conv2d\)"),
    "branch-1x1": (PointwiseBranch, "8 -> 24 and no other, found .*branch 8 -> 8"),
    "branch-depthwise": (DepthwiseBranch, r"nothing else with parameters, found .*branch \(Conv2d\)"),
    "prompt": (Prompt, r"one own parameter.*prompt \(1, 8, 1, 1\)"),
    "no-temperature": (NoTemperature, "one own parameter.*found none"),
    "temperature-per-channel": (ChannelTemperature, r"expected a temperature.*temperature \(2, 4, 1\)"),
    "heads-do-not-divide": (OddHeads, r"8 channels divisible by heads.*\(3, 1, 1\)"),
    "required-argument": (RequiredArgument, r"forward takes \(x, size\)"),
    "optional-argument": (OptionalArgument, r"forward takes \(x, mask=None\)"),
    "any-arguments": (AnyArguments, r"forward takes \(\*maps\)"),
    "keyword-only": (KeywordArgument, r"forward takes \(x\)"),
    "dense-3x3": (Dense, r"one depthwise convolution of 24 channels.*qkv_dwconv \(Conv2d\)"),
    "grouped-3x3": (Grouped, r"one depthwise convolution of 24 channels.*qkv_dwconv \(Conv2d\)"),
    "volume": (Volume, "Conv3d, not Conv2d"),
    "wrapped-volume": (wrapped_volume, "Conv3d, not Conv2d"),
    "buffer": (Buffer, r"holds buffers \(mask\)"),
    "returns-list": (ReturnsList, "returned list instead of one map"),
    "returns-cropped": (ReturnsCropped, r"returned \(\d, 8, \d+, \d+\) instead of one map"),
    "active-dropout": (ActiveDropout, "output differs.*training mode"),
    "batch-of-one": (BatchOfOne, "forward failed"),
    "forward-replaced": (forward_replaced, "forward was replaced on the instance"),
    "alpha-taken": (AlphaTaken, "attribute 'alpha' already"),
    "value-taken": (ValueTaken, "attribute 'value' already"),
}
