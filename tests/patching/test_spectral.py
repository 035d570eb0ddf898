"""MST++'s S-MSA and Retinexformer's IG-MSA: recognised, patched, unpatched."""

import copy

import pytest
import torch
from spandrel.architectures.RetinexFormer import RetinexFormer
from torch import nn

import exda_primitives as exda

from .spectral import Linear, Spectral


def test_lookalikes_are_refused_with_a_reason():
    model = nn.ModuleDict({"a": Linear(), "b": Spectral()})
    model["b"].further = nn.Linear(6, 3)
    misses = {miss.name: miss.reason for miss in exda.plan(model).near_misses}
    assert "differs" in misses["a"]
    assert "further" in misses["b"]
    with pytest.raises(exda.NoMatchError):
        exda.patch(model)


def test_parameters_have_the_official_names():
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
def test_bad_input_is_refused(shapes, message):
    with pytest.raises(exda.InputError, match=message):
        exda.ExDASpectralAttention(6, 2)(*(torch.randn(shape) for shape in shapes))


@torch.no_grad()
def test_retinexformer_is_saved_loaded_and_unpatched(tmp_path):
    torch.manual_seed(0)
    model = RetinexFormer(n_feat=8, stage=1, num_blocks=[1, 1, 1]).eval()
    x = torch.rand(1, 3, 16, 12)
    expected, other = model(x), copy.deepcopy(model)
    assert len(exda.patch(model).matches) == 5
    # Rounding only: sums are taken in another order.
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6)
    for parameter in exda.new_parameters(model):
        parameter.normal_(std=0.1)
    exda.save(model, tmp_path / "patch.safetensors")
    exda.load(other, tmp_path / "patch.safetensors")
    assert torch.equal(other(x), model(x))
    exda.unpatch(model)
    assert torch.equal(model(x), expected)
