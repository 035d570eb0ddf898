"""MST++'s S-MSA and Retinexformer's IG-MSA: recognised, patched, given back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from spandrel.architectures.RetinexFormer import RetinexFormer
from torch import nn

import exda_primitives as exda

CONFIGS = {
    "default": exda.ExDAConfig(init="paper"),
    "tokens": exda.ExDAConfig(tokens=2, value="none", scale="mean", init="paper"),
    "after": exda.ExDAConfig(tokens=0, value_position="after", init="paper"),
    "channelwise": exda.ExDAConfig(tokens="channels", reinject="channelwise", value="gelu", init="paper"),
}


class Spectral(nn.Module):
    """As the papers say it, with names of its own; ``rows`` whose channels the attention's rows are."""

    def __init__(self, dim=6, heads=2, rows="k", biased=False):
        super().__init__()
        self.heads, self.rows = heads, rows
        self.first, self.second, self.third = (nn.Linear(dim, dim, bias=biased) for _ in range(3))
        self.scale = nn.Parameter(torch.rand(heads, 1, 1) + 0.5)
        self.out = nn.Linear(dim, dim)
        convolutions = (nn.Conv2d(dim, dim, 3, 1, 1, groups=dim, bias=False) for _ in range(2))
        self.position = nn.Sequential(next(convolutions), nn.GELU(), next(convolutions))

    def attended(self, x, light):
        linear = self.third(x)
        q, k, v = (
            each.flatten(1, 2).unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
            for each in (self.first(x), self.second(x), linear * light)
        )
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attention = k @ q.mT if self.rows == "k" else q @ k.mT
        out = (attention * self.scale).softmax(-1) @ v
        out = self.out(out.flatten(1, 2).mT).view_as(x)
        return out + self.position(linear.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def forward(self, x):
        return self.attended(x, torch.ones_like(x))


class Guided(Spectral):
    def forward(self, x, light):
        return self.attended(x, light)


class Linear(Spectral):
    """Without the softmax."""

    def forward(self, x):
        return self.out(self.third(x)) + self.position(self.first(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


HOSTS = {
    "smsa": (Spectral, {}, 1),
    "smsa, rows of q, biased": (Spectral, {"rows": "q", "biased": True}, 1),
    "igmsa": (Guided, {}, 2),
}


@pytest.fixture(params=HOSTS)
def host(request):
    torch.manual_seed(0)
    kind, options, inputs = HOSTS[request.param]
    maps = [torch.randn(2, 7, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(inputs)]
    return nn.ModuleDict({"attention": kind(**options)}).double(), maps


def test_at_the_start_it_computes_the_same_and_is_given_back(host):
    model, maps = host
    original, expected = model["attention"], model["attention"](*maps)
    report = exda.patch(model)
    assert [match.family for match in report.matches] == ["igmsa" if len(maps) == 2 else "smsa"]
    torch.testing.assert_close(model["attention"](*maps), expected, rtol=1e-12, atol=1e-12)
    assert set(original.state_dict()) < set(model["attention"].state_dict())
    exda.unpatch(model)
    assert model["attention"] is original


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_outputs_and_gradients_are_those_of_the_printed_formula(host, config):
    model, maps = host
    exda.patch(model, config)
    leaves = [*maps, *model.parameters()]

    def found(backend):
        with exda.backend(backend):
            output = model["attention"](*maps)
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        return [output, *torch.autograd.grad((output * weights).sum(), leaves)]

    for ours, theirs in zip(found("torch"), found("reference"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_what_looks_alike_is_left_with_a_reason():
    model = nn.ModuleDict({"a": Linear(), "b": Spectral()})
    model["b"].further = nn.Linear(6, 3)
    misses = {miss.name: miss.reason for miss in exda.plan(model).near_misses}
    assert "differs" in misses["a"]
    assert "further" in misses["b"]
    with pytest.raises(exda.NoMatchError):
        exda.patch(model)


def test_the_module_takes_the_official_state_dict():
    attention = exda.ExDASpectralAttention(6, 2, init="identity")
    names = {"rescale", "to_q.weight", "to_k.weight", "to_v.weight", "proj.weight", "proj.bias"}
    names |= {"pos_emb.0.weight", "pos_emb.2.weight"}
    assert {name for name, _ in attention.named_parameters()} - attention.new_parameters().keys() == names


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 6, 5, 7)], r"map \(B, H, W, 6\).*axis 3 has to be 6"),
        ([(5, 7, 6)], r"3 dimensions.*x\[None\]"),
        ([(1, 5, 7, 6), (1, 5, 6, 6)], "equal shape"),
    ],
)
def test_bad_input(shapes, message):
    with pytest.raises(exda.InputError, match=message):
        exda.ExDASpectralAttention(6, 2)(*(torch.randn(shape) for shape in shapes))


@torch.no_grad()
def test_retinexformer_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = RetinexFormer(n_feat=8, stage=1, num_blocks=[1, 1, 1]).eval()
    x = torch.rand(1, 3, 16, 12)
    expected, other = model(x), copy.deepcopy(model)
    assert len(exda.patch(model).matches) == 5
    # Rounding alone: sums in another order.
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6)
    for parameter in exda.new_parameters(model):
        parameter.normal_(std=0.1)
    exda.save(model, tmp_path / "patch.safetensors")
    exda.load(other, tmp_path / "patch.safetensors")
    assert torch.equal(other(x), model(x))
    exda.unpatch(model)
    assert torch.equal(model(x), expected)
