"""Without gradients, a fused block replays what its first call recorded, on other maps and with other weights."""

import copy

import pytest
import torch
from tests.ops.triton.programs import shrink_depthwise
from torch import nn

import exda_primitives as exda

from .blocks import BiasFree, WithBias, feature, small_block

CONFIGS = {
    "paper": exda.ExDAConfig(),
    "channelwise": exda.ExDAConfig(tokens="channels", reinject="channelwise", value="gelu"),
    "value alone": exda.ExDAConfig(tokens=0, value="replace"),
    "tokens alone": exda.ExDAConfig(tokens=2, stride=1, scale="mean", value="none"),
    "sigmoid": exda.ExDAConfig(tokens=0, value="sigmoid"),
}


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch):
    shrink_depthwise(monkeypatch)


def fused_and_plain(config=None, **options):
    """A fused model and its unfused copy with the same weights, in float64."""
    plain = nn.Sequential(small_block(**options)).double()
    if config is not None:
        exda.patch(plain, config)
        with torch.no_grad():
            for parameter in exda.new_parameters(plain):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    fused = copy.deepcopy(plain)
    exda.fuse(fused)
    return fused, plain


def agree(fused, plain, x):
    with torch.no_grad():
        torch.testing.assert_close(fused(x), plain(x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("config", "bias"), [(None, False), *zip(CONFIGS.values(), (True, False, True, False, True), strict=True)]
)
def test_first_and_second_call_agree_with_the_block(config, bias):
    torch.manual_seed(0)
    fused, plain = fused_and_plain(config, bias=bias, norm=WithBias if bias else BiasFree)
    for _ in range(2):
        agree(fused, plain, feature(3, 4, dtype=torch.float64))


def test_replay_follows_weights_changed_replaced_and_moved():
    torch.manual_seed(0)
    fused, plain = fused_and_plain(exda.ExDAConfig())
    x = feature(3, 4, 1, dtype=torch.float64)
    agree(fused, plain, x)
    with torch.no_grad():
        for model in (fused, plain):
            for parameter in model.parameters():
                parameter.mul_(1.1)
    agree(fused, plain, x)
    state = {name: tensor + 0.1 for name, tensor in plain.state_dict().items() if isinstance(tensor, torch.Tensor)}
    for model in (fused, plain):
        model.load_state_dict(state, strict=False, assign=True)
    agree(fused, plain, x)
    for model in (fused, plain):
        for parameter in model.parameters():
            # Moved by one element: not 16-byte aligned, as a record distinguishes.
            moved = torch.empty(parameter.numel() + 1, dtype=parameter.dtype)[1:].view(parameter.shape)
            parameter.data = moved.copy_(parameter.data)
    agree(fused, plain, x)


def test_maps_of_several_layouts_and_sizes_in_turn():
    torch.manual_seed(0)
    fused, plain = fused_and_plain(exda.ExDAConfig())
    maps = [
        feature(3, 4, dtype=torch.float64),
        feature(3, 4, batch=1, dtype=torch.float64),
        feature(4, 6, dtype=torch.float64)[:, :, 1:, 2:],
        feature(3, 4, dtype=torch.float64).to(memory_format=torch.channels_last),
        feature(1, 1, dtype=torch.float64),
    ]
    for x in maps * 2:
        agree(fused, plain, x)


def test_second_block_of_one_kind_agrees():
    torch.manual_seed(0)
    for _ in range(2):
        fused, plain = fused_and_plain(exda.ExDAConfig())
        agree(fused, plain, feature(3, 4, 1, dtype=torch.float64))


def test_with_and_without_gradients_in_turn():
    torch.manual_seed(0)
    fused, plain = fused_and_plain(exda.ExDAConfig())
    x = feature(3, 4, 1, dtype=torch.float64)
    for _ in range(2):
        agree(fused, plain, x)
        found, expected = ([*torch.autograd.grad(model(x).sum(), model.parameters())] for model in (fused, plain))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_frozen_weights_and_a_map_that_requires_gradients():
    torch.manual_seed(0)
    fused, plain = fused_and_plain(exda.ExDAConfig())
    x = feature(3, 4, 1, dtype=torch.float64).requires_grad_()
    found, expected = (torch.autograd.grad(model.requires_grad_(False)(x).sum(), x) for model in (fused, plain))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    # Nothing requires gradients: replayed without torch.no_grad, too.
    out = fused(x.detach())
    assert not out.requires_grad
    torch.testing.assert_close(out, plain(x.detach()), rtol=1e-9, atol=1e-11)


# opcheck copies maps without the padding between their rows, which then holds arbitrary numbers whose squares overflow.
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_steps_pass_opcheck():
    torch.manual_seed(0)
    fused, _ = fused_and_plain(exda.ExDAConfig())
    calls = []

    class RecordCalls(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append((func, args))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), RecordCalls():
        fused(feature(3, 4, 1, dtype=torch.float64))
    steps = [call for call in calls if call[0].namespace == "exda"]
    assert [func.name() for func, _ in steps] == ["exda::attention_step", "exda::gated_step"]
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    for func, (x, parameters, *rest) in steps:
        detached = [None if each is None else each.detach() for each in parameters]
        torch.library.opcheck(func, (x, detached, *rest), test_utils=checks)
