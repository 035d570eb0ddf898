"""Channel attention with 1x1 convolutions only, packed or separate for q, k and v."""

import pytest
import torch
from torch import nn

import exda_primitives as exda

from .pointwise import Packed, Separate, SeparateLocal

CONFIGS = {
    "default": exda.ExDAConfig(init="paper"),
    "tokens": exda.ExDAConfig(tokens=2, value="none", scale="mean", init="paper"),
    "after": exda.ExDAConfig(tokens=0, value_position="after", init="paper"),
}


HOSTS = {"packed": Packed, "separate": Separate, "separate and local": SeparateLocal}


@pytest.fixture(params=HOSTS)
def host(request):
    torch.manual_seed(0)
    return nn.ModuleDict({"attention": HOSTS[request.param]()}).double()


@pytest.fixture
def x():
    return torch.randn(2, 8, 7, 5, dtype=torch.float64, requires_grad=True)


def test_patch_preserves_the_output_and_unpatch_restores_the_host(host, x):
    original, expected = host["attention"], host["attention"](x)
    report = exda.patch(host)
    assert [(match.family, match.dim, match.heads) for match in report.matches] == [("gsa", 8, 2)]
    torch.testing.assert_close(host["attention"](x), expected, rtol=1e-12, atol=1e-12)
    assert set(original.state_dict()) < set(host["attention"].state_dict())
    exda.unpatch(host)
    assert host["attention"] is original


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_outputs_and_gradients_equal_the_reference_backends(host, x, config):
    exda.patch(host, config)
    leaves = [x, *host.parameters()]

    def found(backend):
        with exda.backend(backend):
            output = host["attention"](x)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        return [output, *torch.autograd.grad((output * weights).sum(), leaves)]

    for ours, theirs in zip(found("torch"), found("reference"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", HOSTS.values(), ids=HOSTS)
def test_lookalikes_are_refused_with_a_reason(kind):
    class WithoutSoftmax(kind):
        def weigh(self, logits):
            return logits.relu()

    class WithPrompt(kind):
        def __init__(self):
            super().__init__()
            self.prompt = nn.Parameter(torch.randn(8, 1, 1))

    model = nn.ModuleDict({"a": WithoutSoftmax(), "b": WithPrompt()})
    misses = {miss.name: miss.reason for miss in exda.plan(model).near_misses}
    assert "differs" in misses["a"]
    assert "prompt (8, 1, 1)" in misses["b"]


@torch.no_grad()
def test_module_loads_the_official_state_dict(x):
    attention = exda.ExDAPointwiseAttention(8, 2, init="identity").double()
    names = {"temperature", "qkv.weight", "project_out.weight"}
    assert {name for name, _ in attention.named_parameters()} - attention.new_parameters().keys() == names
    host = Packed().double()
    host.out.bias.zero_()
    state = {"temperature": host.rescale, "qkv.weight": host.to_qkv.weight, "project_out.weight": host.out.weight}
    attention.load_state_dict(state)
    torch.testing.assert_close(attention(x), host(x), rtol=1e-12, atol=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(exda.InputError, match=r"map \(B, 8, H, W\)"):
        exda.ExDAPointwiseAttention(8, 2)(torch.randn(1, 6, 4, 4))


@torch.no_grad()
def test_load_restores_what_save_wrote(host, x, tmp_path):
    kind = type(host["attention"])
    exda.patch(host)
    for parameter in exda.new_parameters(host):
        parameter.normal_(std=0.1)
    exda.save(host, tmp_path / "patch.safetensors", whole=True)
    other = nn.ModuleDict({"attention": kind()}).double()
    exda.load(other, tmp_path / "patch.safetensors")
    assert torch.equal(other["attention"](x), host["attention"](x))
