"""Arguments and inputs that cannot work raise at once, and say what was given and what to do."""

import re

import pytest
import torch

import exda_primitives as exda
from exda_primitives import GST, ConfigError, ExDAConfig, InputError, NonlinearValue

# id: (options, parts of the message)
OPTIONS = {
    "scale": ({"scale": "max"}, ["scale='max'", "'sum', 'mean'"]),
    "reinject": ({"reinject": "sum"}, ["reinject='sum'", "'mean', 'channelwise'"]),
    "value": ({"value": "relu"}, ["value='relu'", "'residual', 'replace', 'gelu', 'sigmoid', 'none'"]),
    "value None": ({"value": None}, ["value=None", "'none'"]),
    "value_position": ({"value_position": "inside"}, ["value_position='inside'", "'before', 'after'"]),
    "init": ({"init": "zeros"}, ["init='zeros'", "'paper', 'identity'"]),
    "tokens -1": ({"tokens": -1}, ["tokens=-1", "an integer of at least 0"]),
    "tokens 1.0": ({"tokens": 1.0}, ["tokens=1.0", "an integer"]),
    "tokens True": ({"tokens": True}, ["tokens=True", "an integer"]),
    "stride 0": ({"stride": 0}, ["stride=0", "an integer of at least 1"]),
    "stride '2'": ({"stride": "2"}, ["stride='2'", "an integer"]),
    "replace at identity": (
        {"value": "replace", "init": "identity"},
        ["value='replace'", "init='identity'", "'paper'"],
    ),
    "gelu at identity": ({"value": "gelu", "init": "identity"}, ["value='gelu'", "init='identity'"]),
    "sigmoid at identity": ({"value": "sigmoid", "init": "identity"}, ["value='sigmoid'", "init='identity'"]),
}
# id: (shape, dtype, parts of the message)
INPUTS = {
    "3-D": ((6, 5, 4), torch.float32, ["3 dimensions", "(6, 5, 4)", "(B, 6, H, W)", "[None]"]),
    "5-D": ((2, 1, 6, 5, 4), torch.float32, ["5 dimensions", "(2, 1, 6, 5, 4)", "(B, 6, H, W)", "batch"]),
    "2-D": ((6, 5), torch.float32, ["2 dimensions", "(6, 5)", "(B, 6, H, W)"]),
    "no image": ((0, 6, 5, 4), torch.float32, ["at least one element", "(0, 6, 5, 4)"]),
    "no row": ((2, 6, 0, 4), torch.float32, ["at least one element", "(2, 6, 0, 4)"]),
    "no column": ((2, 6, 5, 0), torch.float32, ["at least one element", "(2, 6, 5, 0)"]),
    "channels": ((2, 5, 6, 6), torch.float32, ["(B, 6, H, W)", "(2, 5, 6, 6)", "axis 1 has to be 6"]),
    "channels last": ((2, 5, 4, 6), torch.float32, ["(B, 6, H, W)", "(2, 5, 4, 6)", "axis 1 has to be 6"]),
    "uint8": ((2, 6, 5, 4), torch.uint8, ["torch.uint8", "floating-point", ".float() / 255"]),
    "int64": ((2, 6, 5, 4), torch.int64, ["torch.int64", "floating-point"]),
    "bool": ((2, 6, 5, 4), torch.bool, ["torch.bool", "floating-point"]),
}


def says(error, parts):
    message = str(error.value)
    return [part for part in parts if part not in message] == []


@pytest.fixture(params=INPUTS.values(), ids=INPUTS)
def bad_input(request):
    shape, dtype, parts = request.param
    return torch.zeros(shape, dtype=dtype), parts


@pytest.mark.parametrize(("options", "parts"), OPTIONS.values(), ids=OPTIONS)
def test_options_of_an_attention_are_checked(family, options, parts, classes):
    with pytest.raises(ConfigError) as error:
        classes[family](6, 2, **options)
    assert says(error, parts)


@pytest.mark.parametrize(("options", "parts"), OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_configuration_are_checked(options, parts):
    with pytest.raises(ConfigError) as error:
        ExDAConfig(**options)
    assert says(error, ["ExDAConfig(", *parts])


@pytest.mark.parametrize(("dim", "heads"), [(7, 2), (2, 4), (0, 1), (6, 0), (-6, 2), (6, -2)])
def test_channels_have_to_be_a_multiple_of_heads(family, dim, heads, classes):
    for build in (classes[family], GST):
        with pytest.raises(ConfigError) as error:
            build(dim, heads)
        assert says(error, [build.__name__, f"dim={dim}", f"num_heads={heads}", "multiple"])


@pytest.mark.parametrize("tokens", [1, 2, 4, 6])
def test_channelwise_needs_as_many_tokens_as_channels(family, tokens, classes):
    with pytest.raises(ConfigError) as error:
        classes[family](6, 2, tokens=tokens, reinject="channelwise")
    assert says(error, [classes[family].__name__, "dim=6", "dim / num_heads = 3", f"not {tokens}", "reinject='mean'"])


@pytest.mark.parametrize("tokens", [0, 3])
def test_channelwise_accepts_as_many_tokens_as_channels_or_none(family, tokens, classes):
    assert classes[family](6, 2, tokens=tokens, reinject="channelwise").config.tokens == tokens


@pytest.mark.parametrize("family", ["mdta", "cross", "histogram"])
def test_input_of_an_attention_is_checked(family, bad_input, classes):
    x, parts = bad_input
    good = torch.zeros(2, 6, 5, 4)
    calls = [(x, good), (good, x)] if family == "cross" else [(x,)]
    for maps in calls:
        with pytest.raises(InputError) as error:
            classes[family](6, 2)(*maps)
        assert says(error, [f"{classes[family].__name__}(dim=6, num_heads=2)", *parts])


def test_error_names_the_wrong_map(bad_input, classes):
    x, _ = bad_input
    good = torch.zeros(2, 6, 5, 4)
    for maps, name in (((x, good), "x"), ((good, x), "y")):
        with pytest.raises(InputError, match=rf"got {name} "):
            classes["cross"](6, 2)(*maps)


@pytest.mark.parametrize("shape", [(1, 6, 5, 4), (2, 6, 4, 5), (2, 6, 5, 3)])
def test_cross_needs_equal_shapes(shape, classes):
    with pytest.raises(InputError) as error:
        classes["cross"](6, 2)(torch.zeros(2, 6, 5, 4), torch.zeros(shape))
    assert says(error, ["(2, 6, 5, 4)", str(shape), "equal shape"])


@pytest.mark.parametrize("build", [lambda: GST(6, 2), lambda: NonlinearValue(6)], ids=["GST", "NonlinearValue"])
def test_input_of_a_primitive_is_checked(build, bad_input):
    x, parts = bad_input
    module = build()
    with pytest.raises(InputError) as error:
        module(x)
    assert says(error, [repr(module), *parts])


def test_compact_maps_check_their_input(bad_input):
    x, _ = bad_input
    with pytest.raises(InputError, match=re.escape("(B, 6, H, W)")):
        GST(6, 2).maps(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, r"GST\(tokens=0\): expected .*at least (1|one)"),
        ({"tokens": -1}, r"GST\(tokens=-1\): expected .*at least (1|one)"),
        ({"stride": 0}, r"GST\(stride=0\): expected .*at least (1|one)"),
        ({"scale": "max"}, r"GST\(scale='max'\): expected one of 'sum', 'mean'"),
    ],
    ids=["tokens 0", "tokens -1", "stride 0", "scale"],
)
def test_options_of_gst_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        GST(6, 2, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "NonlinearValue.*dim=0"),
        ({"dim": 6, "form": "relu"}, r"NonlinearValue\(form='relu'\): expected one of 'residual', .*'none'"),
        ({"dim": 6, "init": "zeros"}, r"NonlinearValue\(init='zeros'\): expected one of 'paper', 'identity'"),
        ({"dim": 6, "form": "replace", "init": "identity"}, r"NonlinearValue\(form='replace', init='identity'\)"),
    ],
    ids=["no channel", "form", "init", "replace at identity"],
)
def test_arguments_of_nonlinear_value_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        NonlinearValue(**arguments)


def test_release_without_a_host_is_an_error(family, classes):
    with pytest.raises(exda.NotPatchedError, match=classes[family].__name__):
        classes[family](6, 2).release()


@pytest.mark.parametrize("error", [ConfigError, InputError])
def test_errors_are_value_errors_of_the_library(error):
    assert issubclass(error, exda.ExDAError)
    assert issubclass(error, ValueError)
