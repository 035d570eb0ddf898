"""torch.fx, and timm's feature extractor on top of it, trace a patched model as they traced the original."""

import copy
import warnings

import pytest
import timm
import torch
from tests.fusion import blocks
from tests.versions import traces_new_tensors
from timm.models import create_feature_extractor
from torch import fx, nn

import exda_primitives as exda

from .models import train_new_parameters
from .tokens import MapBlock, SizedBlock


def patched(model):
    exda.patch(model)
    train_new_parameters(model)
    return model.eval()


def xcit():
    return timm.create_model("xcit_nano_12_p16_224", depth=2, embed_dim=16, num_heads=2, num_classes=3, img_size=32)


def edgenext():
    return timm.create_model(
        "edgenext_xx_small", dims=(8, 16, 16, 32), depths=(2, 2, 2, 2), num_classes=3, heads=(2, 2, 2, 2)
    )


@traces_new_tensors
@pytest.mark.parametrize("make", [xcit, edgenext])
@torch.no_grad()
def test_symbolic_trace_keeps_attentions_as_modules(make):
    model = make().eval()
    x, tall = torch.rand(2, 3, 64, 64), torch.rand(1, 3, 96, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fx.symbolic_trace(model)
        patched(model)
        graph = fx.symbolic_trace(model)
    ours = [name for name, module in model.named_modules() if isinstance(module, exda.ExDAXCAttention)]
    assert [node.target for node in graph.graph.nodes if node.op == "call_module" and node.target in ours] == ours
    assert torch.equal(graph(x), model(x))
    if make is edgenext:
        # XCiT's graph, patched or not, has the sizes of its positional encoding as constants.
        assert torch.equal(graph(tall), model(tall))
    assert torch.equal(copy.deepcopy(graph)(x), model(x))


@pytest.mark.parametrize(("make", "node"), [(xcit, "blocks.0"), (edgenext, "stages.1")])
@torch.no_grad()
def test_feature_extractor_returns_the_nodes_output(make, node):
    model, x = patched(make()), torch.rand(1, 3, 64, 64)
    seen = []
    model.get_submodule(node).register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    model(x)
    extractor = create_feature_extractor(model, return_nodes=[node])
    (found,) = extractor(x).values()
    assert torch.equal(found, seen[0])


PRIMITIVES = {
    "mdta": (lambda: exda.ExDAAttention(8, 2), 1),
    "cross": (lambda: exda.ExDACrossAttention(8, 2), 2),
    "histogram": (lambda: exda.ExDAHistogramAttention(8, 2), 1),
    "value": (lambda: exda.NonlinearValue(8), 1),
    "token": (lambda: exda.GST(8, 2), 1),
}


@pytest.mark.parametrize(("make", "inputs"), PRIMITIVES.values(), ids=PRIMITIVES)
@torch.no_grad()
def test_primitives_are_traced_as_one_call(make, inputs):
    class Traced(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make()

        def forward(self, x, y):
            return 2 * self.inner(*(x, y)[:inputs])

    model = Traced()
    graph = fx.symbolic_trace(model)
    maps = torch.randn(1, 8, 6, 5), torch.randn(1, 8, 6, 5)
    assert torch.equal(graph(*maps), model(*maps))
    with pytest.raises(fx.proxy.TraceError, match=rf"{type(model.inner).__name__} cannot be traced by itself"):
        fx.symbolic_trace(model.inner)


class Pair(SizedBlock):
    def forward(self, x, size):
        return x + self.attn(self.norm(x))


class Model(nn.Module):
    def __init__(self, block, forward):
        super().__init__()
        self.block, self.call = block, forward

    def forward(self, x):
        return self.call(self.block, x)


CALLS = {
    "two sizes": (SizedBlock, lambda block, x: block(x.flatten(2).mT, x.shape[2], x.shape[3])),
    "keywords": (SizedBlock, lambda block, x: block(x.flatten(2).mT, width=x.shape[3], height=x.shape[2])),
    "numbers": (SizedBlock, lambda block, x: block(x.flatten(2).mT, 4, 9)),
    "pair": (Pair, lambda block, x: block(x.flatten(2).mT, (x.shape[2], x.shape[3]))),
    "map": (MapBlock, lambda block, x: block(x)),
}


@pytest.mark.parametrize(("make", "call"), CALLS.values(), ids=CALLS)
@torch.no_grad()
def test_traced_size_is_that_of_the_input(make, call):
    model = patched(Model(make(), call))
    graph = fx.symbolic_trace(model)
    for size in [(4, 9)] if call is CALLS["numbers"][1] else [(4, 9), (9, 4), (3, 5)]:
        x = torch.randn(2, 8, *size)
        assert torch.equal(graph(x), model(x))


@torch.no_grad()
def test_fused_block_is_traced():
    model = nn.Sequential(blocks.Block(norm=blocks.NoParameters, ffn=blocks.Pixels))
    exda.patch(model)
    exda.fuse(model)
    graph, x = fx.symbolic_trace(model), torch.randn(1, 8, 5, 7)
    with exda.backend("torch"):
        assert torch.equal(graph(x), model(x))
