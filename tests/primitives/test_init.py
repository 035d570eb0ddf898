"""Initial values: ``identity`` starts at the host's own function, ``paper`` at the paper's formula."""

import pytest
import torch

import exda_primitives as exda

SIZES = pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 9), (1, 1)], ids=lambda size: "H{}-W{}".format(*size))
CHOICES = {
    "value and token": {},
    "value after": {"value_position": "after"},
    "tokens alone": {"value": "none", "tokens": 3},
    "value alone": {"tokens": 0},
    "channelwise": {"tokens": 3, "reinject": "channelwise", "scale": "mean"},
}
choices = pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)


@pytest.fixture
def pair(make_attention):
    """A function for an attention without primitives and an ExDA attention at identity with the same random weights."""

    def pair(family, bias=True, dtype=torch.float64, **options):
        host = make_attention(family, 6, 2, bias, tokens=0, value="none", dtype=dtype)
        module = make_attention(family, 6, 2, bias, seed=5, dtype=dtype, init="identity", **options)
        own = {name: weight for name, weight in host.state_dict().items() if name != "_extra_state"}
        with pytest.warns(UserWarning, match="ExDA"):
            module.load_state_dict(own)
        return host, module

    return pair


@SIZES
@choices
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_identity_computes_the_hosts_function(family, backend, options, size, pair, make_maps):
    host, module = pair(family, **options)
    maps = make_maps(family, 2, 6, *size)
    with exda.backend(backend):
        torch.testing.assert_close(module(*maps), host(*maps), rtol=0, atol=1e-13)


@SIZES
@choices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_identity_of_histogram_is_the_host_to_the_last_bit(dtype, options, size, pair, make_maps):
    host, module = pair("histogram", dtype=dtype, **options)
    maps = make_maps("histogram", 2, 6, *size, dtype=dtype)
    assert torch.equal(module(*maps), host(*maps))


@choices
def test_gradients_at_identity_do_not_vanish(family, options, pair, make_maps, differentiate):
    _, module = pair(family, **options)
    gradients = differentiate(module, make_maps(family, 2, 6, 8, 6), "torch")
    moving = [name for name in module.new_parameters() if name in {"alpha", "token_gate"} or "conv_out" in name]
    assert moving
    assert [name for name in moving if gradients[name].abs().min() == 0] == []


@choices
def test_one_training_step_leaves_identity(family, options, pair, make_maps):
    host, module = pair(family, **options)
    maps = make_maps(family, 2, 6, 8, 6)
    target = make_maps(family, 2, 6, 8, 6, seed=7)[0]
    new = module.new_parameters().values()
    before = (module(*maps) - target).square().mean()
    gradients = torch.autograd.grad(before, list(new))
    with torch.no_grad():
        for parameter, gradient in zip(new, gradients, strict=True):
            parameter.sub_(gradient, alpha=1e-2)
    assert (module(*maps) - target).square().mean() < before
    assert not torch.equal(module(*maps), host(*maps))


def test_paper_init_sets_alpha_gate_and_value(family, classes):
    module = classes[family](6, 2, tokens=2)
    assert module.alpha.detach().equal(torch.full((2, 1, 1), 0.1))
    assert module.token_gate.detach().equal(torch.ones(2, 1, 1))
    assert module.temperature.detach().equal(torch.ones(2, 1, 1))
    assert module.value.conv_out.weight.abs().min() > 0


def test_paper_is_the_default_of_modules_and_identity_that_of_configurations(family, classes):
    assert classes[family](6, 2).config.init == "paper"
    assert exda.ExDAConfig().init == "identity"


@choices
def test_start_at_identity_restores_the_hosts_function(family, options, make_attention, make_maps):
    module = make_attention(family, 6, 2, True, **options)
    host = make_attention(family, 6, 2, True, tokens=0, value="none")
    host.load_state_dict({name: module.get_parameter(name) for name, _ in host.named_parameters()}, strict=False)
    maps = make_maps(family, 1, 6, 7, 5)
    assert (module(*maps) - host(*maps)).abs().max() > 1e-4
    module.start_at_identity()
    torch.testing.assert_close(module(*maps), host(*maps), rtol=0, atol=1e-13)
