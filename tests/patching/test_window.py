"""Window attention: matched only when its family is asked for, changed only in its value, and unpatched."""

import warnings

import pytest
import torch
from torch import nn

import exda_primitives as exda

from . import windows
from .models import image
from .unchanged import unchanged

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import timm
    from spandrel.architectures.HAT import HAT
    from spandrel.architectures.Swin2SR import Swin2SR
    from spandrel.architectures.SwinIR import SwinIR
    from spandrel.architectures.Uformer import Uformer

SMALL = {"img_size": 16, "window_size": 8, "embed_dim": 8, "num_heads": [2], "depths": [2], "mlp_ratio": 2}


UFORMER = {"img_size": 32, "embed_dim": 8, "depths": [1] * 9, "num_heads": [1, 1, 2, 2, 2, 2, 2, 1, 1], "win_size": 2}


def swin(name):
    size = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "num_classes": 3, "img_size": 64}
    return timm.create_model(name, **size)


# Name: network, attentions, sides of an image. Every second attention is shifted, and so called with a mask.
NETWORKS = {
    "SwinIR": (lambda: SwinIR(upscale=1, upsampler="", **SMALL), 2, (20, 28)),
    "Swin2SR": (lambda: Swin2SR(upscale=1, upsampler="", **SMALL), 2, (20, 28)),
    "HAT": (lambda: HAT(upscale=2, upsampler="pixelshuffle", compress_ratio=2, squeeze_factor=2, **SMALL), 2, (20, 28)),
    "Uformer": (lambda: Uformer(**UFORMER), 9, (32, 32)),
    "timm's Swin": (lambda: swin("swin_tiny_patch4_window7_224"), 2, (64, 64)),
    "timm's Swin V2": (lambda: swin("swinv2_tiny_window8_256"), 2, (64, 64)),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    make, attentions, size = NETWORKS[request.param]
    model = make().eval()
    with torch.no_grad():
        # Some networks initialise their blocks to return their input, which would hide what the attention does.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model, attentions, image(*size)


@torch.no_grad()
def test_third_party_networks_are_patched_and_unpatched(network):
    model, attentions, x = network
    expected = model(x)
    with unchanged(model, random_numbers=False):
        assert exda.plan(model).matches == ()
        report = exda.patch(model, tokens=0, families="window")
        assert len(report.matches) == attentions
        assert {match.family for match in report.matches} == {"window"}
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
        assert {name.rpartition(".")[0].split(".")[-2] for name in report.new_parameters} == {"value"}
        for name, parameter in model.named_parameters():
            if name in report.new_parameters:
                parameter.add_(0.1)
        changed = model(x)
        assert (changed - expected).abs().max() > 1e-3
        with exda.backend("reference"):
            torch.testing.assert_close(model(x), changed, rtol=1e-4, atol=1e-5)
        exda.unpatch(model)
    assert torch.equal(model(x), expected)


@torch.no_grad()
def test_load_finds_the_patched_attentions_without_families(tmp_path):
    make, attentions, size = NETWORKS["SwinIR"]
    model, x = make().eval(), image(*size)
    exda.patch(model, tokens=0, families="window")
    for parameter in exda.new_parameters(model):
        parameter.add_(0.1)
    exda.save(model, tmp_path / "patch.safetensors", whole=True)
    # No ``families`` here: the file says which attentions were patched.
    other = make().eval()
    exda.load(other, tmp_path / "patch.safetensors")
    assert len(exda.configs_of(other)) == attentions
    assert torch.equal(other(x), model(x))


def test_value_branch_takes_the_window_as_a_map():
    torch.manual_seed(0)
    host = windows.Swin()
    ours = exda.from_host(host, tokens=0, value="residual", families="window")
    with torch.no_grad():
        for parameter in ours.value.parameters():
            parameter.normal_()
    x = torch.randn(3, 12, 8)
    v = host.all_three(x)[..., 16:]
    new_value = ours.value(v.mT.reshape(3, 8, 4, 3)).flatten(2).mT
    packed = torch.cat([host.all_three(x)[..., :16], new_value], -1)
    host.packed = lambda _: packed
    torch.testing.assert_close(ours(x), host(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.linear_value(x), v.mT.reshape(3, 8, 4, 3), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (windows.Relu, "output differs"),
        (windows.OtherScale, "output differs"),
        (windows.ValueFirst, "output differs"),
        (windows.Dropping, "drops values at random"),
        (windows.WithNorm, "found all_three, norm, out"),
        (windows.OddHeads, "3 heads"),
        (windows.Volume, r"its windows are of (2, 2, 3) pixels; expected a height and a width"),
        (lambda: windows.Unlike((4, 4)), "its windows are of 4 x 4 pixels, its positions of 12"),
        (lambda: windows.Unlike(0), "its windows are of 0 pixels; expected a height and a width"),
        (lambda: windows.Unlike((None, 3)), "its windows are of (None, 3) pixels; expected a height and a width"),
    ],
)
def test_lookalikes_are_near_misses_with_a_reason(make, reason):
    torch.manual_seed(0)
    report = exda.plan(nn.Sequential(make()), tokens=0, families="window")
    assert report.matches == ()
    (miss,) = report.near_misses
    assert reason in miss.reason


def test_tokens_are_refused():
    model = nn.Sequential(windows.Swin())
    with pytest.raises(exda.ConfigError, match=r"0: ExDAWindowAttention.*no counterpart.*tokens=0"):
        exda.patch(model, families="window")
    assert type(model[0]) is windows.Swin
    with pytest.raises(exda.ConfigError, match="tokens=0"):
        exda.ExDAWindowAttention(8, 2, tokens=1)


def test_report_notes_that_it_is_an_extension():
    report = exda.plan(nn.Sequential(windows.Swin()), tokens=0, families="window")
    assert any("extension" in note for note in report.notes)
    assert not any("extension" in note for note in exda.plan(exda.models.Restormer(dim=8)).notes)


def test_module_built_from_scratch_loads_a_state_dict_of_timm():
    torch.manual_seed(0)
    host = timm.models.swin_transformer.WindowAttention(8, 2, window_size=(4, 3))
    ours = exda.ExDAWindowAttention(8, 2, window_size=(4, 3), init="identity")
    missing = ours.load_state_dict(host.state_dict(), strict=False).missing_keys
    assert missing == ["relative_position_index"]
    x = torch.randn(4, 12, 8)
    torch.testing.assert_close(ours(x), host(x), rtol=0, atol=1e-6)
    mask = torch.zeros(2, 12, 12)
    mask[1, :6, 6:] = -100
    torch.testing.assert_close(ours(x, mask=mask), host(x, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a(torch.randn(2, 10, 8)), r"windows of 4 x 3 = 12 pixels, got x of shape \(2, 10, 8\)"),
        (lambda a: a(torch.randn(2, 12, 6)), "8"),
        (lambda a: a(torch.randn(3, 12, 8), torch.zeros(2, 12, 12)), "a divisor of 3 windows"),
        (lambda a: a(torch.randn(2, 12, 8), torch.zeros(2, 9, 9)), r"got \(2, 9, 9\)"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(exda.InputError, match=message):
        call(exda.ExDAWindowAttention(8, 2, window_size=(4, 3)))


def test_windows_that_are_no_squares_are_refused_where_no_attribute_says_their_sides():
    ours = exda.from_host(windows.Square(), tokens=0, families="window")
    with pytest.raises(exda.InputError, match=r"windows of a square number of pixels, got x of shape \(2, 12, 8\)"):
        ours(torch.randn(2, 12, 8))


@pytest.mark.parametrize("size", [0, -1, (4, 0), (2, 4, 3), (), None, 2.5, "8", True])
def test_window_sizes_that_are_none_are_refused(size):
    with pytest.raises(
        exda.ConfigError, match=r"Attention\(window_size=.*\): expected a positive integer, or a height"
    ):
        exda.ExDAWindowAttention(8, 2, window_size=size)


def test_keys_and_values_of_another_map_are_refused():
    ours = exda.from_host(windows.Apart(), tokens=0, families="window")
    x = torch.randn(2, 12, 8)
    with pytest.raises(exda.InputError, match="keys and values of another map"):
        ours(x, x, None)


def test_missing_index_of_positions_raises():
    ours = exda.from_host(windows.Called(), tokens=0, families="window")
    with pytest.raises(exda.InputError, match=r"expected an index of positions \(12, 12\), got none"):
        ours(torch.randn(2, 12, 8))


def test_positions_on_the_meta_device_are_refused_with_that_reason():
    with torch.device("meta"):
        host = nn.Sequential(windows.Swin())
    (miss,) = exda.plan(host, families="window", tokens=0).near_misses
    assert "is on the meta device" in miss.reason
