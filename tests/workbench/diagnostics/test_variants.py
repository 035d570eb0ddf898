"""The forms of the value path: their sizes, and which of them are linear in the value."""

import pytest
import torch
from torch import nn

from exda_primitives import ConfigError
from exda_primitives.workbench.diagnostics import digits, function, position
from exda_primitives.workbench.diagnostics.function import WindowNetwork
from exda_primitives.workbench.diagnostics.variants import (
    RESIDUAL,
    TOLERANCE,
    VARIANTS,
    WIDENED,
    Layout,
    channel_network,
    parameter_matched,
    parameters,
)

FUNCTION_LAYOUTS = [Layout(1 + 2 * order, 1, 1, 17, 1) for order in function.ORDERS]
LAYOUTS = [
    *(Layout(**{**vars(digits.LAYOUT), "depth": depth}) for depth in (1, 2, 4)),
    *FUNCTION_LAYOUTS,
    position.LAYOUT,
]


def window_network(layout: Layout, name: str) -> nn.Module:
    return parameter_matched(
        lambda variant, width, fewer_biases: WindowNetwork(layout, variant, width, fewer_biases), layout, name
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_widened_control_has_as_many_parameters(layout: Layout) -> None:
    wanted = parameters(channel_network(layout, RESIDUAL))
    widened = channel_network(layout, WIDENED)
    assert parameters(widened) == pytest.approx(wanted, rel=TOLERANCE)
    assert widened.first.weight.shape[0] > layout.width
    assert parameters(channel_network(layout, "branch")) == wanted
    assert parameters(channel_network(layout, "after")) == wanted


@pytest.mark.parametrize("layout", FUNCTION_LAYOUTS)
def test_the_widened_window_has_as_many_parameters(layout: Layout) -> None:
    wanted = parameters(window_network(layout, RESIDUAL))
    assert parameters(window_network(layout, WIDENED)) == pytest.approx(wanted, rel=TOLERANCE)
    assert parameters(window_network(layout, "branch")) == wanted


def test_the_sizes_of_the_digits_networks() -> None:
    """Counted by hand: first 10 C, attention 4 C^2 + 34 C + 2, g 2 C^2 + 12 C, last 9 C + 1, C = 16."""
    sizes = {name: parameters(channel_network(digits.LAYOUT, name)) for name in VARIANTS}
    assert sizes["linear"] == sizes["gelu"] == sizes["sigmoid"] == 1875
    assert sizes["residual"] == sizes["replace"] == sizes["replace-after"] == 2579
    # Phi, alpha and the gate.
    assert sizes["token"] == 1875 + 2 * 16 + 4
    assert sizes["token4"] == 1875 + 8 * 16 + 4
    assert sizes["both"] == 2579 + 2 * 16 + 4


def test_the_biases_left_out_can_be_expressed_by_the_others() -> None:
    """Away from the border, a network without these biases can compute the same function as one with them."""
    layout = Layout(**{**vars(digits.LAYOUT), "residual": False})
    torch.manual_seed(0)
    full = channel_network(layout, "linear").double()
    without = channel_network(layout, "linear").double()
    without.load_state_dict(full.state_dict())
    with torch.no_grad():
        attention, first = without.attentions[0], without.first
        first.bias.zero_()
        attention.qkv.bias += attention.qkv.weight.flatten(1) @ full.first.bias
        attention.project_out.bias.zero_()
        without.last.bias += without.last.weight.sum((2, 3)) @ full.attentions[0].project_out.bias
    x = torch.rand(1, 1, 9, 11, dtype=torch.float64)
    assert torch.allclose(full(x)[..., 1:-1, 1:-1], without(x)[..., 1:-1, 1:-1], atol=1e-12)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != WIDENED])
def test_only_linear_and_branch_are_linear_in_the_value(name: str) -> None:
    """With queries and keys held fixed, twice the value weights (and no biases) give twice the output.

    Not so with tokens: they are values of their own, which are not doubled.
    """
    torch.manual_seed(0)
    layout = Layout(2, 2, 1, 4, 2)
    network = channel_network(layout, name).double()
    attention = network.attentions[0]
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.zero_()
        if attention.alpha is not None:
            attention.alpha.zero_()
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    before = network(x)
    with torch.no_grad():
        attention.part("qkv").weight[8:] *= 2
    after = network(x)
    assert torch.allclose(after, 2 * before, rtol=1e-9) == (name in ("linear", "branch"))


def test_an_impossible_width_and_an_unknown_variant_are_refused() -> None:
    with pytest.raises(ConfigError, match="no width from 2 on has 1"):
        channel_network(Layout(1, 1, 1, 2, 1), WIDENED)
    with pytest.raises(ConfigError, match="'wide' is no variant; there are linear, widened"):
        channel_network(digits.LAYOUT, "wide")


def test_the_search_for_a_width_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    widened = channel_network(digits.LAYOUT, WIDENED)
    torch.manual_seed(0)
    first = nn.Conv2d(1, 20, 3, bias=False)
    assert torch.equal(widened.first.weight, first.weight)
