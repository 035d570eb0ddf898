"""A module's repr is the call that builds it."""

import pytest
from torch import nn

import exda_primitives as exda

CALLS = [
    "NonlinearValue(dim=6, form='residual', init='paper')",
    "NonlinearValue(dim=6, form='residual', init='identity')",
    "NonlinearValue(dim=1, form='gelu', init='paper')",
    "GST(dim=8, num_heads=2, tokens=1, stride=2, scale='sum')",
    "GST(dim=8, num_heads=4, tokens=3, stride=5, scale='mean')",
    "ExDAConfig(tokens=1, stride=2, scale='sum', reinject='mean', value='residual', value_position='before', "
    "init='identity')",
    "ExDAConfig(tokens=0, stride=4, scale='mean', reinject='channelwise', value='gelu', value_position='after', "
    "init='paper')",
]
ATTENTIONS = [
    "(dim=6, num_heads=2, bias=False, tokens=1, stride=2, scale='sum', reinject='mean', value='residual', "
    "value_position='before', init='paper')",
    "(dim=6, num_heads=2, bias=True, tokens=3, stride=1, scale='mean', reinject='channelwise', value='replace', "
    "value_position='after', init='paper')",
    "(dim=6, num_heads=1, bias=True, tokens=0, stride=2, scale='sum', reinject='mean', value='none', "
    "value_position='before', init='identity')",
]
NAMES = ["ExDAAttention", "ExDACrossAttention", "ExDAHistogramAttention", "ExDAXCAttention"]
CALLS += [name + arguments for name in NAMES for arguments in ATTENTIONS]


@pytest.mark.parametrize("call", CALLS)
def test_repr_is_the_call(call):
    built = eval(call, vars(exda))
    assert repr(built) == call
    again = eval(repr(built), vars(exda))
    assert type(again) is type(built)
    if isinstance(built, exda.ExDAConfig):
        assert again == built
    else:
        assert shapes(again) == shapes(built)


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_repr_includes_default_arguments(name):
    built = getattr(exda, name)(8, 4)
    assert shapes(eval(repr(built), vars(exda))) == shapes(built)
    assert repr(built).startswith(f"{name}(dim=8, num_heads=4, bias=False, tokens=1, stride=2")


def test_config_as_dict_builds_it_again():
    config = exda.ExDAConfig(tokens=3, stride=1, scale="mean", value="none", value_position="after")
    assert exda.ExDAConfig(**config.as_dict()) == config


def test_config_is_hashable_and_immutable():
    config = exda.ExDAConfig(tokens=2)
    assert {config: 1}[exda.ExDAConfig(tokens=2)] == 1
    with pytest.raises(AttributeError):
        config.tokens = 3


def test_repr_with_a_wrapped_projection(family, make_attention):
    module = make_attention(family, 8, 2, True)
    expected = repr(module)
    name = module.PARTS[-1]
    setattr(module, name, nn.Sequential(getattr(module, name)))
    assert repr(module) == expected
    assert isinstance(module.kernel_unsupported_reason(8, 8), str | None)
