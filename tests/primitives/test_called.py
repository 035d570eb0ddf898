"""``value``, ``token`` and their layers are called, unless using their weights directly cannot be noticed."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrize

import exda_primitives as exda
from exda_primitives.ops.tokens import in_dtype_of

from .altered import ALTERATIONS, forward_hook, parametrised

LAYERS = ("value.conv_in", "value.dwconv", "value.conv_out", "token.phi")
EACH_LAYER = pytest.mark.parametrize("layer", LAYERS)
BACKENDS = pytest.mark.parametrize("backend", ["torch", "reference"])
PLACES = pytest.mark.parametrize(
    ("value", "position"),
    [("residual", "before"), ("residual", "after"), ("replace", "before"), ("replace", "after")],
)
FORMS = pytest.mark.parametrize("form", ["residual", "replace", "gelu", "sigmoid", "none"])


@pytest.fixture
def make(make_attention):
    def make(family, value="residual", position="before", **options):
        return make_attention(family, 6, 2, True, tokens=2, value=value, value_position=position, **options).eval()

    return make


def alter(module, names, alteration):
    """Alters the layers; returns a function for the same attention with equal plain convolutions in their place."""
    plain, effective = copy.deepcopy(module), {}
    for name in names:
        altered, effective[name] = alteration(module.get_submodule(name))
        _put(module, name, altered)

    def equivalent():
        with torch.no_grad():
            for name, tensors in effective.items():
                convolution = plain.get_submodule(name)
                for parameter, tensor in zip((convolution.weight, convolution.bias), tensors(), strict=True):
                    if tensor is not None:
                        parameter.copy_(tensor)
        return plain

    return equivalent


def _put(module, name, layer):
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, layer)


def check(module, maps, names, equivalent, backend, differentiate, relative_errors):
    """Compares outputs, and gradients of inputs and of unaltered parameters, with the equivalent; none may vanish."""
    found = differentiate(module, maps, backend)
    expected = differentiate(equivalent(), maps, "reference")
    common = {name: tensor for name, tensor in expected.items() if not name.startswith(tuple(names))}
    assert {"output", "input 0", "alpha", "temperature"} <= common.keys()
    errors = relative_errors(found, common)
    assert max(errors.values()) < 1e-11, errors
    for name, gradient in found.items():
        assert gradient.abs().max() > 0, name


@BACKENDS
@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda alteration: alteration.__name__)
def test_altered_layers_agree_with_equal_convolutions(
    family, alteration, backend, make, make_maps, differentiate, relative_errors
):
    module, maps = make(family), make_maps(family, 2, 6, 5, 3)
    equivalent = alter(module, LAYERS, alteration)
    check(module, maps, LAYERS, equivalent, backend, differentiate, relative_errors)


@EACH_LAYER
@PLACES
def test_each_hooked_layer_in_every_form_and_position(
    family, layer, value, position, make, make_maps, differentiate, relative_errors
):
    module, maps = make(family, value, position), make_maps(family, 2, 6, 5, 3)
    equivalent = alter(module, (layer,), forward_hook)
    check(module, maps, (layer,), equivalent, "torch", differentiate, relative_errors)


class Counter:
    def __init__(self):
        self.calls = []

    def __call__(self, module, *_):
        self.calls.append(module)


HOOKS = {
    "forward": lambda module, hook: module.register_forward_hook(hook),
    "forward-pre": lambda module, hook: module.register_forward_pre_hook(hook),
    "full-backward": lambda module, hook: module.register_full_backward_hook(hook),
    "full-backward-pre": lambda module, hook: module.register_full_backward_pre_hook(hook),
}


@BACKENDS
@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("part", ["value", "token", *LAYERS])
def test_hooks_fire_once_and_change_nothing(part, kind, backend, make, make_maps, differentiate):
    # Two families are enough: these two compute value and tokens in different ways.
    for family in ("mdta", "histogram"):
        module, maps, counter = make(family), make_maps(family, 2, 6, 5, 3), Counter()
        expected = differentiate(module, maps, backend)
        handle = HOOKS[kind](module.get_submodule(part), counter)
        found = differentiate(module, maps, backend)
        assert counter.calls == [module.get_submodule(part)]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-12)
        handle.remove()
        again = differentiate(module, maps, backend)
        assert len(counter.calls) == 1
        assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


@FORMS
@pytest.mark.parametrize("position", ["before", "after"])
@torch.no_grad()
def test_hook_changes_a_value_of_every_form(family, form, position, make, make_maps):
    module, maps, seen = make(family, form, position), make_maps(family, 2, 6, 5, 3), []
    if form == "none":
        module.value = exda.NonlinearValue(6, "none")
    plain = module(*maps)
    module.value.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)) or 3 * output)
    found = module(*maps)
    ((v, output),) = seen
    assert output.shape == v.shape
    assert not torch.allclose(found, plain)
    with exda.backend("reference"):
        torch.testing.assert_close(module(*maps), found, rtol=0, atol=1e-12)


@torch.no_grad()
def test_global_hooks_fire_for_the_new_modules(family, make, make_maps):
    module, maps, counter = make(family), make_maps(family, 2, 6, 5, 3), Counter()
    expected = module(*maps)
    handle = global_hooks.register_module_forward_hook(counter)
    try:
        found = module(*maps)
    finally:
        handle.remove()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for part in (module.value, module.token, *map(module.get_submodule, LAYERS)):
        assert counter.calls.count(part) == 1


@torch.no_grad()
def test_without_hooks_nothing_is_called(channel_family, make, make_maps, monkeypatch):
    module, maps, called = make(channel_family), make_maps(channel_family, 2, 6, 5, 3), []
    for layer in (nn.Conv2d, exda.NonlinearValue, exda.GST):
        forward = layer.forward
        monkeypatch.setattr(layer, "forward", lambda self, x, forward=forward: called.append(self) or forward(self, x))
    module(*maps)
    assert not {*called} & {module.value, module.token, *map(module.get_submodule, LAYERS)}


class Shifted(nn.Module):
    """A user's own value, which adds pixels from elsewhere in the map."""

    def forward(self, v):
        return v + v.roll((1, 2), (-2, -1))


class Halves(nn.Module):
    """A user's own tokens: maps of the image's upper and lower half, for each of two heads."""

    def forward(self, x):
        upper = (torch.arange(x.shape[2]) < x.shape[2] / 2).to(x.dtype)[:, None].expand(x.shape[2:])
        maps = torch.stack([upper, 1 - upper]) / upper.numel()
        return maps.expand(x.shape[0], 2, -1, -1, -1)


@pytest.mark.parametrize("position", ["before", "after"])
def test_users_own_value_and_tokens_agree(family, position, make, make_maps, differentiate, relative_errors):
    module, maps = make(family, position=position), make_maps(family, 2, 6, 4, 5)
    plain = differentiate(module, maps, "torch")["output"]
    module.value, module.token = Shifted(), Halves()
    found, expected = (differentiate(module, maps, backend) for backend in ("torch", "reference"))
    assert not torch.allclose(found["output"], plain)
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-11, errors


@torch.no_grad()
def test_users_own_value_on_a_token_sequence_gets_a_map():
    attention, seen = exda.ExDAXCAttention(6, 2, tokens=0, value="none").double(), []
    attention.value = Shifted()
    attention.value.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape))
    attention(torch.randn(2, 15, 6, dtype=torch.float64), grid=(5, 3))
    assert seen == [(2, 6, 5, 3)]


def without_bias(value):
    value.conv_out.bias = None


def a_wider_branch(value):
    value.conv_in = nn.Conv2d(6, 12, 1)
    value.dwconv = nn.Conv2d(12, 12, 5, padding=2, groups=12)
    value.conv_out = nn.Conv2d(12, 6, 1)


def a_wider_branch_of_the_usual_kinds(value):
    value.conv_in = nn.Conv2d(6, 12, 1)
    value.dwconv = nn.Conv2d(12, 12, 3, padding=1, groups=12)
    value.conv_out = nn.Conv2d(12, 6, 1)


def a_reflecting_branch(value):
    value.dwconv = nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="reflect")


def a_dense_branch(value):
    value.conv_in = nn.Conv2d(6, 6, 3, padding=1)
    value.dwconv = nn.Conv2d(6, 6, 3, padding=1, groups=3)


@pytest.mark.parametrize(
    "exchange",
    [without_bias, a_wider_branch, a_wider_branch_of_the_usual_kinds, a_reflecting_branch, a_dense_branch],
    ids=lambda exchange: exchange.__name__,
)
@BACKENDS
def test_other_convolutions_in_the_branch_agree(family, exchange, backend, make, make_maps, differentiate):
    module, maps = make(family, "replace"), make_maps(family, 2, 6, 5, 3)
    exchange(module.value)
    module.double()

    class Branch(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.layers = nn.Sequential(value.conv_in, value.dwconv, nn.GELU(), value.conv_out)

        def forward(self, v):
            return self.layers(v)

    found = differentiate(module, maps, backend)["output"]
    module.value = Branch(module.value)
    expected = differentiate(module, maps, "reference")["output"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_output_projection_of_another_size_is_called(make, make_maps):
    module, maps = make("mdta"), make_maps("mdta", 2, 6, 5, 3)
    module.project_out = nn.Conv2d(6, 6, 3, padding=1).double()
    with exda.backend("reference"):
        expected = module(*maps)
    torch.testing.assert_close(module(*maps), expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@torch.no_grad()
def test_sparse_projection_is_called():
    attention, x = exda.ExDAXCAttention(6, 2), torch.randn(2, 15, 6)
    expected = attention(x, grid=(5, 3))
    attention.proj.weight = nn.Parameter(attention.proj.weight.to_sparse_csr())
    torch.testing.assert_close(attention(x, grid=(5, 3)), expected)


@torch.no_grad()
def test_cached_parametrisations_give_equal_outputs(family, make, make_maps):
    module, maps = make(family), make_maps(family, 2, 6, 5, 3)
    alter(module, LAYERS, parametrised)
    expected = module(*maps)
    with parametrize.cached():
        assert torch.equal(module(*maps), expected)
        assert torch.equal(module(*maps), expected)


@pytest.mark.parametrize("part", ["value", "token", *LAYERS])
@torch.no_grad()
def test_kernels_do_not_take_hooked_primitives(part, make, make_maps):
    module, maps = make("mdta").float(), make_maps("mdta", 1, 6, 5, 3, dtype=torch.float32)
    assert module.kernel_unsupported_reason(5, 3) is None
    module.get_submodule(part).register_forward_hook(lambda _, inputs, output: 2 * output)
    assert f"the {'value' if 'value' in part else 'tokens'} has to be called" in module.kernel_unsupported_reason(5, 3)
    expected = module(*maps)
    with exda.backend("triton"):
        assert torch.equal(module(*maps), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_called_tokens_in_half_precision_agree(family, dtype, make, make_maps):
    module, maps = make(family, "none").to(dtype), make_maps(family, 1, 6, 32, 40, dtype=dtype)
    expected = module(*maps)
    module.token.register_forward_hook(lambda _, inputs, output: output)
    found = module(*maps)
    assert found.dtype is dtype
    # Called tokens scale their maps differently, so that other numbers are rounded.
    bound = 8 * torch.finfo(dtype).eps * expected.abs().max().item()
    assert (found - expected).abs().mean() <= bound


@pytest.mark.parametrize("backend", ["torch", "reference"])
@torch.no_grad()
def test_called_primitives_under_autocast_agree(channel_family, backend, make, make_maps):
    module = make(channel_family).float()
    maps = make_maps(channel_family, 1, 6, 9, 7, dtype=torch.float32)
    expected = module(*maps)
    for part in ("value", "token"):
        module.get_submodule(part).register_forward_hook(lambda _, inputs, output: output)
    with torch.autocast("cpu", torch.bfloat16), exda.backend(backend):
        found = module(*maps)
    bound = 8 * torch.finfo(torch.bfloat16).eps * expected.abs().max().item()
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=bound)


def test_small_numbers_of_maps_survive_half_precision():
    maps = torch.rand(1, 2, 1024, 1024) / 2**20
    assert (maps.half() == 0).float().mean() > 0.01
    kept, factor = in_dtype_of(torch.zeros((), dtype=torch.float16), maps)
    assert factor.log2() == factor.log2().round()
    torch.testing.assert_close(kept.float() * factor, maps, rtol=2**-10, atol=1e-12)
    empty, factor = in_dtype_of(torch.zeros((), dtype=torch.float16), torch.zeros(1, 2, 3, 3))
    assert factor == 1
    assert not empty.any()
    assert in_dtype_of(maps, maps) == (maps, 1.0)


@pytest.mark.parametrize("family", ["mdta", "histogram"])
def test_hooked_attention_compiles_to_one_graph(family, make, make_maps, differentiate):
    torch.compiler.reset()
    module, maps = make(family), make_maps(family, 2, 6, 5, 3)
    module.value.conv_in.register_forward_hook(lambda _, inputs, output: 2 * output)
    module.token.register_forward_hook(lambda _, inputs, output: 2 * output)
    expected = differentiate(module, maps, "torch")
    found = differentiate(torch.compile(module, backend="eager", fullgraph=True), maps, "torch")
    torch.testing.assert_close(found["output"], expected["output"], rtol=0, atol=1e-12)
    torch.compiler.reset()


@torch.no_grad()
def test_copy_keeps_alterations(family, make, make_maps):
    module, maps = make(family), make_maps(family, 2, 6, 5, 3)
    module.value.conv_in.register_forward_hook(lambda _, inputs, output: 2 * output)
    module.token.phi = nn.Sequential(module.token.phi)
    assert torch.equal(copy.deepcopy(module)(*maps), module(*maps))


def test_standalone_modules_call_their_layers():
    counter, value, token = Counter(), exda.NonlinearValue(6), exda.GST(6, 2)
    for layer in (value.conv_in, value.dwconv, value.conv_out, token.phi):
        layer.register_forward_hook(counter)
    value(torch.randn(1, 6, 4, 5))
    token.maps(torch.randn(1, 6, 4, 5))
    assert counter.calls == [value.conv_in, value.dwconv, value.conv_out, token.phi]


@torch.no_grad()
def test_token_maps_are_flat_to_the_last_bit_beyond_the_outermost_centres():
    maps = exda.GST(6, 2, stride=4)(torch.randn(1, 6, 13, 10))
    # Rows and columns 0 and 1 are beyond the centres of the outermost cells of 4 x 4 pixels.
    assert torch.equal(maps[..., 0, :], maps[..., 1, :])
    assert torch.equal(maps[..., :, 0], maps[..., :, 1])
    assert not torch.equal(maps[..., 1, :], maps[..., 2, :])


@pytest.mark.parametrize("token", [exda.GST(8, 2, stride=6, scale="mean"), exda.GST(8, 2, 3, stride=1)], ids=str)
def test_a_token_with_other_settings_computes_what_it_says(token: exda.GST) -> None:
    attention = exda.ExDAAttention(8, 2)
    torch.nn.init.constant_(attention.alpha, 0.7)
    attention.token = token
    called = copy.deepcopy(attention)
    # An idle hook: the module is called, in place of its weights being read.
    called.token.register_forward_hook(lambda *_: None)
    x = torch.randn(1, 8, 24, 20)
    torch.testing.assert_close(attention(x), called(x), rtol=1e-4, atol=1e-5)
    assert attention.config == exda.ExDAConfig(token.tokens, token.stride, token.scale, init="paper")


@pytest.mark.parametrize("form", ["replace", "gelu", None])
def test_a_file_says_which_primitives_are_in_place(form: str | None, tmp_path: Path) -> None:
    model = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1).eval()
    exda.patch(model)
    for module in model.modules():
        if isinstance(module, exda.ExDAModule):
            module.value = None if form is None else exda.NonlinearValue(module.dim, form)  # type: ignore[arg-type]
            module.token.stride = 3
            torch.nn.init.constant_(module.alpha, 0.5)
    exda.save(model, tmp_path / "whole.safetensors", whole=True)
    found = exda.models.create(checkpoint=tmp_path / "whole.safetensors")
    assert (exda.config_of(found).value, exda.config_of(found).stride) == (form or "none", 3)
    x = torch.rand(1, 3, 24, 16)
    assert torch.equal(found(x), model(x))
    # A network of the first configuration takes neither the file nor the state dict for its own.
    other = exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    exda.patch(other)
    with pytest.raises(exda.CheckpointError, match="from an attention with"):
        other.load_state_dict(model.state_dict())
