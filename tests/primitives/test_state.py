"""Parameters: their names, shapes, dtypes and devices, and which of them an original state dict fills."""

import copy
import pickle

import pytest
import torch
from torch import nn

import exda_primitives as exda

VALUE = {f"value.{conv}.{kind}" for conv in ("conv_in", "dwconv", "conv_out") for kind in ("weight", "bias")}
TOKEN = {"token.phi.weight", "alpha", "token_gate"}
HOST = {
    "mdta": {"temperature", "qkv.weight", "qkv_dwconv.weight", "project_out.weight"},
    "cross": {
        "temperature",
        "q.weight",
        "q_dwconv.weight",
        "kv.weight",
        "kv_dwconv.weight",
        "project_out.weight",
    },
    "histogram": {"temperature", "qkv.weight", "qkv_dwconv.weight", "project_out.weight"},
    "xca": {"temperature", "qkv.weight", "proj.weight", "proj.bias"},
}
CHOICES = {
    "default": ({}, VALUE | TOKEN),
    "no token": ({"tokens": 0}, VALUE),
    "no value": ({"value": "none"}, TOKEN),
    "value without parameters": ({"value": "gelu"}, TOKEN),
    "nothing": ({"tokens": 0, "value": "none"}, set()),
    "replace": ({"value": "replace", "tokens": 4}, VALUE | TOKEN),
}
choices = pytest.mark.parametrize(("options", "new"), CHOICES.values(), ids=CHOICES)


class RestormerAttention(nn.Module):
    """The parameters of Restormer's official attention, in its order."""

    def __init__(self, dim, num_heads, bias):
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)


@choices
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_names_of_parameters(family, bias, options, new, classes):
    module = classes[family](8, 2, bias, **options)
    biases = {name.replace("weight", "bias") for name in HOST[family] if bias and name.endswith("weight")}
    assert set(module.state_dict()) == HOST[family] | biases | new | {"_extra_state"}
    assert set(module.new_parameters()) == new
    parameters = dict(module.named_parameters())
    assert all(parameter is parameters[name] for name, parameter in module.new_parameters().items())


@choices
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
def test_restormer_state_dict_loads(bias, options, new):
    host = RestormerAttention(8, 2, bias)
    module = exda.ExDAAttention(8, 2, bias, **options)
    before = {name: module.state_dict()[name].clone() for name in new}
    with pytest.warns(UserWarning, match="holds nothing of what ExDA added") as warned:
        module.load_state_dict(host.state_dict(), strict=True)
    assert len(warned) == 1
    assert all(torch.equal(module.state_dict()[name], weight) for name, weight in before.items())
    assert all(torch.equal(module.state_dict()[name], weight) for name, weight in host.state_dict().items())


@pytest.mark.parametrize("kept", ["the first parameter", "all but the first", "the configuration"])
@pytest.mark.parametrize("options", [{}, {"tokens": 0}, {"value": "gelu"}], ids=str)
def test_state_dict_with_only_some_new_entries_is_an_error(kept, options):
    module = exda.ExDAAttention(8, 2, **options)
    added = [*sorted(module.new_parameters()), "_extra_state"]
    chosen = {"the first parameter": added[:1], "all but the first": added[1:], "the configuration": added[-1:]}[kept]
    state = {name: module.state_dict()[name] for name in chosen}
    with pytest.raises(RuntimeError, match="Missing key") as raised:
        module.load_state_dict(RestormerAttention(8, 2, False).state_dict() | state, strict=True)
    assert all(repr(name)[1:-1] in str(raised.value) for name in {*added} - {*chosen})


def test_host_parameters_come_first_and_in_the_official_order():
    names = list(RestormerAttention(8, 2, True).state_dict())
    ours = list(exda.ExDAAttention(8, 2, True).state_dict())
    # PyTorch lists a module's own parameters before those of its children.
    assert [name for name in ours if name in names] == names


def test_shapes_of_new_parameters(family, classes):
    shapes = {name: tuple(p.shape) for name, p in classes[family](8, 2, tokens=3).new_parameters().items()}
    assert shapes == {
        "alpha": (2, 1, 1),
        "token_gate": (2, 1, 1),
        "token.phi.weight": (6, 8, 1, 1),
        "value.conv_in.weight": (8, 8, 1, 1),
        "value.conv_in.bias": (8,),
        "value.dwconv.weight": (8, 1, 3, 3),
        "value.dwconv.bias": (8,),
        "value.conv_out.weight": (8, 8, 1, 1),
        "value.conv_out.bias": (8,),
    }


@pytest.mark.parametrize("init", ["paper", "identity"])
def test_modules_on_the_meta_device(family, init, classes):
    module = classes[family](4096, 8, True, device="meta", init=init)
    assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
    assert module.extra_macs(64, 64) > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_modules_of_every_dtype(family, dtype, classes, make_maps):
    module = classes[family](8, 2, True, dtype=dtype)
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    assert module(*make_maps(family, 1, 8, 5, 3, dtype=dtype)).dtype is dtype


@pytest.mark.parametrize(
    "build",
    [lambda **options: exda.GST(8, 2, **options), lambda **options: exda.NonlinearValue(8, **options)],
    ids=["GST", "NonlinearValue"],
)
def test_primitives_take_device_and_dtype(build):
    parameters = list(build(device="meta", dtype=torch.float16).parameters())
    assert {(parameter.device.type, parameter.dtype) for parameter in parameters} == {("meta", torch.float16)}


@choices
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_equal_and_share_nothing(family, options, new, duplicate, make_attention, make_maps):
    module, maps = make_attention(family, 8, 2, **options), make_maps(family, 1, 8, 5, 3)
    other = duplicate(module)
    assert torch.equal(other(*maps), module(*maps))
    assert repr(other) == repr(module)
    assert set(other.new_parameters()) == new
    assert not {id(p) for p in other.parameters()} & {id(p) for p in module.parameters()}


def test_state_dict_round_trip(family, make_attention, make_maps):
    module, other = make_attention(family, 8, 2), make_attention(family, 8, 2, seed=1)
    maps = make_maps(family, 1, 8, 5, 3)
    assert not torch.equal(other(*maps), module(*maps))
    other.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(other(*maps), module(*maps))
