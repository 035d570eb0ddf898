"""What the concat-free functions save for backward and recompute, wherever PyTorch takes gradients."""

import contextlib
import copy

import pytest
import torch
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.utils.checkpoint import checkpoint

import exda_primitives as exda
from exda_primitives.ops.torch import gram, projection, sums

# Under vmap, PyTorch warns that it runs baddbmm_ image by image.
pytestmark = pytest.mark.filterwarnings("ignore:.*batching rule for aten..baddbmm_:UserWarning")

OPTIONS = {
    "residual before": {"value": "residual", "tokens": 2},
    "replace before": {"value": "replace", "tokens": 1, "stride": 1, "bias": True},
    "residual after": {"value": "residual", "value_position": "after", "tokens": 2, "bias": True},
    "replace after": {"value": "replace", "value_position": "after", "tokens": 0},
    "gelu": {"value": "gelu", "tokens": 1},
    "sigmoid": {"value": "sigmoid", "tokens": 2, "reinject": "mean"},
    "none": {"value": "none", "tokens": 1},
}
EACH_OPTION = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
PRECISIONS = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "autocast": (torch.float32, True),
}
EACH_PRECISION = pytest.mark.parametrize(("dtype", "autocast"), PRECISIONS.values(), ids=PRECISIONS)


def autocasting(enabled):
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled)


def kept_for_backward(call):
    """The bytes of each storage that backward keeps, by address; and the call's result."""
    storages = {}

    def pack(x):
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = call()
    return {address: storage.nbytes() for address, storage in storages.items()}, result


def differentiated(module, maps, autocast=False):
    leaves = [*maps, *module.parameters()]
    with autocasting(autocast):
        output = module(*maps)
    functional = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
    return output, torch.autograd.grad(output, leaves, functional)


def without_recomputation(monkeypatch):
    """Switches recomputation off: autograd's own nodes save what they need."""
    for module in (gram, projection, sums):
        monkeypatch.setattr(module, "recomputes", lambda *_: False)


# In maps (B, C, H, W) of the products' dtype: the host's q, k, v; for a value with parameters the map before GELU, and
# if it comes after the aggregation the one before the depthwise convolution as well. The histogram family also keeps
# sort orders, sorted rows and unit rows: see below.
KEPT = {
    "residual before": 4,
    "replace before": 4,
    "residual after": 5,
    "replace after": 5,
    "gelu": 3,
    "sigmoid": 3,
    "none": 3,
}


@EACH_PRECISION
@pytest.mark.parametrize("name", KEPT)
def test_backward_keeps_this_many_maps(channel_family, name, dtype, autocast, make_attention, make_maps):
    module = make_attention(channel_family, 24, 1, dtype=dtype, **OPTIONS[name])
    maps = [x.requires_grad_() for x in make_maps(channel_family, 1, 24, 32, 32, dtype=dtype)]
    # In a network maps are no leaves, and autocast reuses casts of leaves only.
    maps = [x * 1 for x in maps]
    with autocasting(autocast):
        storages, _ = kept_for_backward(lambda: module(*maps))
    for x in (*maps, *module.parameters()):
        storages.pop(x.untyped_storage().data_ptr(), None)
    unit = maps[0].numel() * (2 if autocast else maps[0].element_size())
    # Under autocast, also each input's cast to half precision.
    expected = KEPT[name] + autocast * len(maps)
    # Tokens and cast weights take a fraction of a map.
    assert expected <= sum(storages.values()) / unit < expected + 0.8


@EACH_PRECISION
def test_histogram_keeps_seven_maps_less_than_autograd_would(dtype, autocast, make_attention, make_maps, monkeypatch):
    module = make_attention("histogram", 24, 1, dtype=dtype)
    maps = make_maps("histogram", 1, 24, 32, 32, dtype=dtype)

    def total():
        with autocasting(autocast):
            return sum(kept_for_backward(lambda: module(*maps))[0].values())

    found = total()
    without_recomputation(monkeypatch)
    unit = maps[0].numel() * (2 if autocast else maps[0].element_size())
    # Seven maps less: five projections before their depthwise convolution, and of the value's branch the maps before
    # the depthwise convolution and after GELU.
    assert 6.9 < (total() - found) / unit < 7.1


@EACH_PRECISION
@EACH_OPTION
def test_recomputing_leaves_outputs_unchanged_to_the_last_bit(
    family, options, dtype, autocast, make_attention, make_maps, monkeypatch
):
    module = make_attention(family, 8, 2, dtype=dtype, **options)
    maps = [x.requires_grad_() for x in make_maps(family, 2, 8, 9, 7, dtype=dtype)]
    output, gradients = differentiated(module, maps, autocast)
    with torch.no_grad(), autocasting(autocast):
        assert torch.equal(module(*maps), output)
    without_recomputation(monkeypatch)
    expected, expected_gradients = differentiated(module, maps, autocast)
    assert torch.equal(output, expected)
    # A map's gradients may be added up in another order.
    eps = torch.finfo(torch.bfloat16 if autocast else dtype).eps
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=4 * eps * wanted.abs().max().item())


@EACH_OPTION
def test_gradients_of_parts_equal_those_taken_all_at_once(family, options, make_attention, make_maps):
    module = make_attention(family, 4, 2, **options)
    maps = [x.requires_grad_() for x in make_maps(family, 2, 4, 5, 3)]
    leaves = dict(enumerate(maps)) | dict(module.named_parameters())
    _, everything = differentiated(module, maps)
    expected = dict(zip(leaves, everything, strict=True))
    ours = [name for name in leaves if isinstance(name, str) and name.split(".")[0] in ("value", "token", "alpha")]
    host = [name for name in leaves if isinstance(name, str) and name not in ours]
    for wanted in ([*ours, 0], list(range(len(maps))), host, ours[:1], host[-1:]):
        if not wanted:
            continue
        for name, leaf in leaves.items():
            leaf.requires_grad_(name in wanted)
        output = module(*maps)
        functional = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
        found = torch.autograd.grad(output, [leaves[name] for name in wanted], functional)
        for name, gradient in zip(wanted, found, strict=True):
            torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-12)


# Every form of the value in one family; in the others one form on each side of the aggregation.
@pytest.mark.parametrize(
    ("family", "name"),
    [("mdta", name) for name in OPTIONS]
    + [(family, name) for family in ("cross", "histogram", "xca") for name in ("replace before", "residual after")],
)
def test_second_derivatives(family, name, make_attention, make_maps):
    module = make_attention(family, 4, 2, **OPTIONS[name])
    maps = [x.requires_grad_() for x in make_maps(family, 1, 4, 3, 3)]
    names, parameters = zip(*module.named_parameters(), strict=True)

    def call(*leaves):
        return functional_call(module, dict(zip(names, leaves[len(maps) :], strict=True)), leaves[: len(maps)])

    assert torch.autograd.gradgradcheck(call, (*maps, *parameters), fast_mode=True)


def test_second_derivatives_of_products_in_half_precision():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(1, 2, rows, 50, generator=generator).bfloat16() for rows in (3, 3, 2)]
    # A row of zeros has no direction, and its norm no derivative.
    rows[0][0, 0, 0] = 0
    upstream = [torch.randn(x.shape, generator=generator) for x in gram.gram(*rows)]

    def second(function, rows):
        leaves = [x.detach().requires_grad_() for x in (*rows, *upstream)]
        first = torch.autograd.grad(function(*leaves[:3]), leaves[:3], leaves[3:], create_graph=True)
        return torch.autograd.grad([x.float().square().sum() for x in first], leaves)

    for found, expected in zip(second(gram.gram, rows), second(gram._gram, [x.float() for x in rows]), strict=True):
        assert found.isfinite().all()
        # Autograd's own second derivative of the norm of zeros is NaN.
        known = expected.isfinite()
        assert known.float().mean() > 0.6
        bound = 0.02 * expected[known].abs().max().item()
        torch.testing.assert_close(found.float()[known], expected[known], rtol=0, atol=bound)


@pytest.mark.parametrize("activation", ["gelu", "sigmoid"])
def test_backward_of_a_sum_ignores_autocast(activation):
    leaves = [torch.randn(2, 3, 4), torch.randn(2, 4, 5, 6), torch.randn(2, 3)]
    leaves = [x.requires_grad_() for x in leaves]
    found = []
    for enabled in (False, True):
        total = sums.Sum()
        total.add(leaves[0], leaves[1], activation)
        total.shift(leaves[2])
        output = total.evaluate(None)
        with autocasting(enabled):
            found.append(torch.autograd.grad(output, leaves, output.detach()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_backward_inside_autocast_gives_nearly_the_same_gradients(channel_family, make_attention, make_maps):
    module = make_attention(channel_family, 8, 2, dtype=torch.float32)
    maps = [x.requires_grad_() for x in make_maps(channel_family, 2, 8, 9, 7, dtype=torch.float32)]
    output = module(*maps)
    expected = torch.autograd.grad(output.sum(), [*maps, *module.parameters()])
    output = module(*maps)
    with autocasting(True):
        found = torch.autograd.grad(output.sum(), [*maps, *module.parameters()])
    for gradient, wanted in zip(found, expected, strict=True):
        assert gradient.dtype is wanted.dtype
        # Autocast rounds the matrix products of autograd's own nodes. Measured: 3 eps.
        bound = 8 * torch.finfo(torch.bfloat16).eps * wanted.abs().max().item()
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=bound)


def test_weights_used_again_under_autocast_get_both_gradients(make_attention, make_maps):
    module = make_attention("mdta", 8, 2, dtype=torch.float32)
    (x,) = make_maps("mdta", 1, 8, 9, 7, dtype=torch.float32)
    with autocasting(True):
        first, again = module(x).float().sum(), module.qkv(x).float().sum()
    (alone,) = torch.autograd.grad(again, module.qkv.weight, retain_graph=True)
    (both,) = torch.autograd.grad(first + again, module.qkv.weight)
    assert alone.abs().max() > 0
    assert not torch.equal(both, alone)


def test_weight_changed_before_backward_is_an_error(family, make_attention, make_maps):
    module = make_attention(family, 4, 2)
    output = module(*make_maps(family, 1, 4, 5, 3))
    with torch.no_grad():
        module.value.conv_in.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_hooked_or_replaced_convolutions_are_called(make_attention, make_maps):
    module, maps = make_attention("mdta", 4, 2), make_maps("mdta", 1, 4, 5, 3)
    expected = differentiated(module, maps := [x.requires_grad_() for x in maps])
    calls = []
    hook = module.qkv_dwconv.register_forward_hook(lambda *_: calls.append("hook"))
    differentiated(module, maps)
    hook.remove()
    module.qkv.forward = lambda x: calls.append("forward") or type(module.qkv).forward(module.qkv, x)
    found = differentiated(module, maps)
    assert calls == ["hook", "forward"]
    assert torch.equal(found[0], expected[0])
    del module.qkv.forward
    torch.nn.utils.parametrize.register_parametrization(module.qkv, "weight", torch.nn.Softplus())
    assert not torch.equal(module(*maps), expected[0])


def test_convolutions_with_other_padding_are_called(make_attention, make_maps):
    module, (x,) = make_attention("mdta", 4, 2), make_maps("mdta", 1, 4, 5, 3)
    module.qkv_dwconv.padding_mode = "reflect"
    module.qkv_dwconv = torch.nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False, padding_mode="reflect").double()
    output, gradients = differentiated(module, [x.requires_grad_()])
    with exda.backend("reference"):
        expected, expected_gradients = differentiated(module, [x])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.fixture
def functional(make_attention, make_maps):
    """A function of parameters and one image; parameters and three images for it, in float64."""
    module = make_attention("mdta", 4, 2, tokens=2)
    (images,) = make_maps("mdta", 3, 4, 5, 3)
    parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return lambda p, x: functional_call(module, p, (x[None],)).square().sum(), parameters, images


def test_per_image_gradients_agree_with_one_call_per_image(functional, monkeypatch):
    function, parameters, images = functional
    found = vmap(grad(function), in_dims=(None, 0))(parameters, images)
    whole = grad(lambda p: vmap(function, in_dims=(None, 0))(p, images).sum())(parameters)
    without_recomputation(monkeypatch)
    for i, image in enumerate(images):
        for name, expected in grad(function)(parameters, image).items():
            torch.testing.assert_close(found[name][i], expected, rtol=1e-9, atol=1e-11)
    for name, each in found.items():
        torch.testing.assert_close(whole[name], each.sum(0), rtol=1e-9, atol=1e-11)


def test_forward_mode_derivatives(functional):
    function, parameters, images = functional
    direction = images[1]
    _, found = jvp(lambda x: function(parameters, x), (images[0],), (direction,))
    expected = grad(lambda x: function(parameters, x))(images[0])
    torch.testing.assert_close(found, (expected * direction).sum(), rtol=1e-9, atol=1e-11)
    curvature = hessian(lambda alpha: function(parameters | {"alpha": alpha}, images[0]))(parameters["alpha"])
    assert curvature.shape == parameters["alpha"].shape * 2
    torch.testing.assert_close(curvature.flatten(3).flatten(0, 2), curvature.flatten(3).flatten(0, 2).T)


@pytest.mark.parametrize(
    ("family", "precision"),
    [("mdta", "autocast"), ("histogram", "bfloat16"), ("xca", "float32")],
)
def test_compiled_training_step_agrees_with_eager(family, precision, make_attention, make_maps):
    torch.compiler.reset()
    dtype, autocast = PRECISIONS[precision]
    module = make_attention(family, 8, 2, dtype=dtype)
    maps = [x.requires_grad_() for x in make_maps(family, 1, 8, 6, 5, dtype=dtype)]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, expected = differentiated(compiled, maps, autocast), differentiated(module, maps, autocast)
    torch.testing.assert_close(found[0], expected[0])
    eps = torch.finfo(torch.bfloat16 if autocast else dtype).eps
    for gradient, wanted in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=24 * eps * max(wanted.abs().max().item(), 1))
    torch.compiler.reset()


def call_targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(("family", "strict"), [("mdta", True), ("cross", False), ("xca", False)])
def test_exported_graphs_do_not_depend_on_requires_grad(family, strict, make_attention, make_maps):
    module, maps = make_attention(family, 4, 2), make_maps(family, 1, 4, 6, 5)
    found = call_targets(torch.export.export(module, maps, strict=strict))
    frozen = copy.deepcopy(module).requires_grad_(False)
    assert found == call_targets(torch.export.export(frozen, maps, strict=strict))
    assert not [target for target in found if "autograd" in target]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
def test_traced_graphs_contain_no_python_functions(make_attention, make_maps):
    module, maps = make_attention("mdta", 4, 2), make_maps("mdta", 1, 4, 6, 5)
    graph = torch.jit.trace(module, maps, check_trace=False).inlined_graph
    kinds = {node.kind() for node in graph.nodes()}
    assert "aten::_convolution" in kinds
    # TorchScript writes a Python function as "^Name".
    assert not [kind for kind in kinds if "^" in kind or "PythonOp" in kind]


@pytest.mark.parametrize("reentrant", [False, True], ids=["not-reentrant", "reentrant"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_activation_checkpointing_changes_no_bit(family, autocast, reentrant, make_attention, make_maps):
    module = make_attention(family, 8, 2, dtype=torch.float32)
    maps = [x.requires_grad_() for x in make_maps(family, 1, 8, 6, 5, dtype=torch.float32)]
    expected = differentiated(module, maps, autocast)
    with autocasting(autocast):
        output = checkpoint(module, *maps, use_reentrant=reentrant)
    assert torch.equal(output, expected[0])
    functional = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).to(output.dtype)
    output.backward(functional)
    for leaf, wanted in zip((*maps, *module.parameters()), expected[1], strict=True):
        assert torch.equal(leaf.grad, wanted)


def test_nothing_is_kept_without_gradients(family, make_attention, make_maps):
    module, maps = make_attention(family, 4, 2), make_maps(family, 1, 4, 5, 3)
    for region in (torch.no_grad(), torch.inference_mode(), contextlib.nullcontext()):
        with region:
            storages, output = kept_for_backward(lambda: module.requires_grad_(False)(*maps))
        assert not storages
        assert not output.requires_grad
