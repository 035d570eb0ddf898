"""The non-linear value and its other forms."""

import pytest
import torch
import torch.nn.functional as F

from exda_primitives import NonlinearValue

V = torch.randn(2, 4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def branch(value, v):
    """g, with its convolutions called as modules."""
    return value.conv_out(F.gelu(value.dwconv(value.conv_in(v))))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("residual", lambda value: V + branch(value, V)),
        ("replace", lambda value: branch(value, V)),
        ("gelu", lambda value: F.gelu(V)),
        ("sigmoid", lambda value: torch.sigmoid(V)),
        ("none", lambda value: V),
    ],
    ids=["residual", "replace", "gelu", "sigmoid", "none"],
)
def test_every_form_computes_its_formula(form, expected):
    value = NonlinearValue(4, form).double()
    torch.testing.assert_close(value(V), expected(value), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("form", "count"), [("residual", 6), ("replace", 6), ("gelu", 0), ("sigmoid", 0), ("none", 0)])
def test_number_of_parameters(form, count):
    assert len(list(NonlinearValue(4, form).parameters())) == count


def test_identity_is_exact_and_trainable():
    value = NonlinearValue(4, init="identity").double()
    output = value(V)
    assert torch.equal(output, V)
    weight, bias = torch.autograd.grad(output.square().sum(), value.conv_out.parameters())
    assert weight.abs().min() > 0
    assert bias.abs().min() > 0


def test_identity_keeps_the_first_convolutions():
    value = NonlinearValue(4, init="identity")
    assert value.conv_in.weight.abs().min() > 0
    assert value.dwconv.weight.abs().min() > 0


def test_paper_init_changes_the_value():
    assert (NonlinearValue(4).double()(V) - V).abs().max() > 1e-3


def test_start_at_identity_restores_the_input():
    value = NonlinearValue(4).double()
    value.start_at_identity()
    assert torch.equal(value(V), V)
