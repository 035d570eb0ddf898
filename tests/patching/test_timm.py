"""timm's XCiT and EdgeNeXt as installed: patched, trained, copied, exported, compiled and unpatched."""

import copy
import pickle

import pytest
import timm
import torch
from timm.models.edgenext import EdgeNeXt
from timm.models.xcit import Xcit

import exda_primitives as exda

from .models import train_new_parameters
from .unchanged import unchanged


def xcit():
    return timm.create_model("xcit_nano_12_p16_224", img_size=64, num_classes=10)


def edgenext():
    # Layer scales of 1, so that what an attention does is not multiplied by 1e-6.
    return timm.create_model("edgenext_xx_small", num_classes=10, ls_init_value=1.0)


def small_xcit():
    return Xcit(img_size=64, embed_dim=16, depth=1, num_heads=4, cls_attn_layers=1, num_classes=10)


def small_edgenext():
    sizes = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "global_block_counts": (0, 0, 1, 0), "heads": (4,) * 4}
    return EdgeNeXt(**sizes, num_classes=10, ls_init_value=1.0)


MODELS = {"xcit": (xcit, 12), "edgenext": (edgenext, 3)}
SMALL = {"xcit": small_xcit, "edgenext": small_edgenext}


def image(height=64, width=96, batch=2):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=MODELS)
def fresh(request):
    make, attentions = MODELS[request.param]
    return make().eval(), attentions


@pytest.fixture(params=SMALL)
def model(request):
    """A smaller network with the same modules around its attention, patched and trained."""
    torch.manual_seed(0)
    model = SMALL[request.param]().eval()
    exda.patch(model)
    train_new_parameters(model)
    return model


@pytest.fixture
def block(model):
    """The first block that holds an attention, and a call of it for a map of H x W."""
    name = next(name for name, module in model.named_modules() if isinstance(module, exda.ExDAModule))
    block = model.get_submodule(name.rpartition(".")[0])
    dim = model.get_submodule(name).dim
    if name.startswith("blocks"):
        return block, lambda height, width: (torch.randn(2, height * width, dim), height, width)
    return block, lambda height, width: (torch.randn(2, dim, height, width),)


@torch.no_grad()
def test_patch_preserves_outputs_until_trained_and_unpatch_restores_them(fresh):
    model, attentions = fresh
    images = [image(), image(96, 64), image(32, 128)]
    before = [model(x) for x in images]
    with unchanged(model, random_numbers=False):
        report = exda.patch(model)
        assert [match.family for match in report.matches] == ["xca"] * attentions
        assert not report.near_misses
        for x, expected in zip(images, before, strict=True):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
        for module in model.modules():
            if isinstance(module, exda.ExDAXCAttention):
                module.alpha.fill_(0.5)
                module.token_gate.fill_(0.5)
                module.token.phi.weight.normal_()
        for x, expected in zip(images, before, strict=True):
            assert (model(x) - expected).abs().max() > 1e-4
        exda.unpatch(model)
    assert all(torch.equal(model(x), expected) for x, expected in zip(images, before, strict=True))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_other_networks_have_neither_matches_nor_near_misses(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    report = exda.plan(model)
    assert not report.matches
    assert not report.near_misses


def test_channel_attention_of_davit_is_a_near_miss():
    with torch.device("meta"):
        report = exda.plan(timm.create_model("davit_tiny"))
    assert not report.matches
    assert len(report.near_misses) == 6
    assert all("softmax over channels" in miss.reason for miss in report.near_misses)


def test_dropout_is_refused_with_the_remedy():
    model = timm.create_model("xcit_nano_12_p16_224", attn_drop_rate=0.1)
    with pytest.raises(exda.NoMatchError, match=r"blocks\.0\.attn \(XCA\) is not xca: .*attn_drop, p=0\.1.*set p to 0"):
        exda.patch(model)


def test_gradients_reach_every_new_parameter(model):
    model(image()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if ".attn." in name and p.grad is None] == []
    assert all(p.grad.abs().max() > 0 for p in exda.new_parameters(model))


def test_gradient_checkpointing(model):
    x = image()
    model(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    # A forward at another size before backward: the recomputation has to use its own size.
    model.set_grad_checkpointing(True)
    first = model(x).square().sum()
    with torch.no_grad():
        model(image(96, 64))
    first.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_channels_last(model):
    x = image()
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_autocast(fresh):
    model, _ = fresh
    x = image()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(x)
        exda.patch(model)
        out = model(x)
    assert out.dtype is torch.bfloat16
    # Measured: 0.01, where the largest output is 0.7.
    assert (out - before).abs().max() < 0.05


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.no_grad()
def test_copies_compute_the_same(model, duplicate):
    other, x = duplicate(model), image(32, 96)
    assert torch.equal(other(x), model(x))


# No strict export of EdgeNeXt: it traces as torch.compile does, which ``test_block_compiles_by_itself`` covers.
@pytest.mark.parametrize(
    ("model", "strict"), [("xcit", True), ("xcit", False), ("edgenext", False)], indirect=["model"]
)
@torch.no_grad()
def test_export_with_dynamic_sizes(model, strict):
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (image(128, 192),), dynamic_shapes=(dynamic,), strict=strict)
    x = image(160, 128)
    # Export leaves nothing on the model that cannot be copied or pickled.
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    torch.testing.assert_close(program.module()(x), again(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["xcit"], indirect=True)
@torch.no_grad()
def test_compiled_as_one_graph(model):
    torch.compiler.reset()
    graphs = []
    whole = torch.compile(
        model, backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True, dynamic=True
    )
    for size in ((64, 96), (96, 160)):
        x = image(*size)
        torch.testing.assert_close(whole(x), model(x), rtol=0, atol=1e-5)
    torch.compiler.reset()
    # One graph for all sizes; a side of 2 tokens, which pools to 1, may need a second.
    assert len(graphs) <= 2


@torch.no_grad()
def test_block_compiles_by_itself(block):
    torch.compiler.reset()
    module, call = block
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for size in ((5, 7), (7, 5), (6, 6)):
        arguments = call(*size)
        torch.testing.assert_close(compiled(*arguments), module(*arguments), rtol=0, atol=1e-5)
    torch.compiler.reset()


@torch.no_grad()
def test_jit_trace_computes_the_same(model):
    x = image()
    traced = torch.jit.trace(model, x, check_trace=False)
    torch.testing.assert_close(traced(x), model(x), rtol=0, atol=1e-5)
