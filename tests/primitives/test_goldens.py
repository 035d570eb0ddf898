"""Without primitives, the attentions load the official state dicts and compute the official outputs."""

import pytest
import torch
from tests.goldens.recipe import fill_state, load_case, load_spec

import exda_primitives as exda

# Golden file: (module that computes it, heads).
OFFICIAL = {
    "attention-mdta_dim96_heads2_bias": (exda.ExDAAttention, 2),
    "attention-adair_cross_dim96_heads4": (exda.ExDACrossAttention, 4),
    "attention-histoformer_dim36_heads1": (exda.ExDAHistogramAttention, 1),
    "attention-histoformer_dim72_heads2": (exda.ExDAHistogramAttention, 2),
}


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_plain_attention_gives_the_official_outputs(name: str, backend: str) -> None:
    spec = load_spec(name)
    kind, heads = OFFICIAL[name]
    attention = kind(spec["config"]["dim"], heads, spec["config"]["bias"], tokens=0, value="none")
    with pytest.warns(UserWarning, match="ExDA"):
        attention.load_state_dict({key: torch.from_numpy(value) for key, value in fill_state(spec).items()})
    assert [key for key in attention.state_dict() if key != "_extra_state"] == list(spec["state_dict"])
    for index in range(len(spec["cases"])):
        case = load_case(name, index)
        inputs = [torch.from_numpy(x) for x in case.inputs]
        with exda.backend(backend), torch.no_grad():
            single = attention.float()(*inputs)[..., :: case.stride, :: case.stride]
            double = attention.double()(*(x.double() for x in inputs))[..., :: case.stride64, :: case.stride64]
        # Bounds: tests/goldens/README.md.
        torch.testing.assert_close(single, torch.from_numpy(case.output), rtol=0, atol=2e-5)
        torch.testing.assert_close(double, torch.from_numpy(case.output64), rtol=0, atol=1e-9)
