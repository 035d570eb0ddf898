"""Outputs have the shape and dtype of the input, for every combination of options and every size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import exda_primitives as exda

side = st.integers(1, 12)


@st.composite
def options(draw):
    heads, channels = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 4))
    reinject = draw(st.sampled_from(["mean", "channelwise"]))
    value = draw(st.sampled_from(["residual", "replace", "gelu", "sigmoid", "none"]))
    return {
        "dim": heads * channels,
        "num_heads": heads,
        "bias": draw(st.booleans()),
        "tokens": draw(st.sampled_from([0, channels]) if reinject == "channelwise" else st.integers(0, 5)),
        "stride": draw(st.integers(1, 5)),
        "scale": draw(st.sampled_from(["sum", "mean"])),
        "reinject": reinject,
        "value": value,
        "value_position": draw(st.sampled_from(["before", "after"])),
        "init": draw(st.sampled_from(["paper", "identity"] if value in {"residual", "none"} else ["paper"])),
    }


@pytest.mark.parametrize("backend", ["reference", "torch"])
@settings(max_examples=50, deadline=None)
@given(options=options(), batch=st.integers(1, 3), height=side, width=side)
def test_attention_keeps_shape_and_dtype(family, backend, options, batch, height, width, classes, make_maps):
    module = classes[family](**options)
    maps = make_maps(family, batch, options["dim"], height, width, dtype=torch.float32)
    with exda.backend(backend), torch.no_grad():
        output = module(*maps)
    assert output.shape == (batch, options["dim"], height, width)
    assert output.dtype is torch.float32
    assert output.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(form=st.sampled_from(["residual", "replace", "gelu", "sigmoid", "none"]), height=side, width=side)
def test_value_keeps_the_shape(form, height, width):
    v = torch.randn(2, 3, height, width)
    output = exda.NonlinearValue(3, form)(v)
    assert output.shape == v.shape
    assert output.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_every_dtype_is_kept(family, backend, dtype, make_attention, make_maps):
    module = make_attention(family, tokens=2, dtype=dtype)
    with exda.backend(backend):
        assert module(*make_maps(family, 1, 6, 5, 3, dtype=dtype)).dtype is dtype
