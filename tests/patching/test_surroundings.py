"""Recognition and replacement under other global settings, and beside unusual modules and hooks."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.modules import module as global_hooks

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, restormer, two_blocks
from .unchanged import unchanged


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default_dtype(request):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_patching_works_under_another_default_dtype(default_dtype):
    model = two_blocks()
    assert len(exda.patch(model).matches) == 2
    assert {parameter.dtype for parameter in exda.new_parameters(model)} == {default_dtype}


def test_new_parameters_have_the_models_dtype_not_the_default():
    model = two_blocks()
    torch.set_default_dtype(torch.float64)
    try:
        assert len(exda.patch(model).matches) == 2
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_new_parameters_are_on_the_models_device():
    model = two_blocks()
    with torch.device("meta"):
        assert len(exda.patch(model).matches) == 2
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_recognition_works_under_autocast():
    model = two_blocks()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert len(exda.patch(model).matches) == 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_new_parameters_require_gradients_in_any_mode(mode):
    model = two_blocks()
    with mode():
        exda.patch(model)
    assert all(parameter.requires_grad for parameter in exda.new_parameters(model))


@torch.no_grad()
def test_patch_ignores_a_lazy_convolution_elsewhere():
    model = Net(MDTA())
    model.tail = nn.Sequential(nn.LazyConv2d(8, 1), nn.Conv2d(8, 3, 1))
    assert len(exda.patch(model).matches) == 1
    assert model(image()).shape == (2, 3, 16, 24)


class Recorder:
    """A hook that cannot be deep-copied because it holds a lock, as trainers and loggers do."""

    def __init__(self):
        self.lock = threading.Lock()
        self.calls = 0

    def __call__(self, *_):
        self.calls += 1


def test_patch_needs_no_copies_of_hooks():
    model, recorder = two_blocks(), Recorder()
    model.blocks[0].attn.register_forward_hook(recorder)
    model.blocks[1].attn.qkv.register_forward_hook(recorder)
    assert len(exda.patch(model).matches) == 2
    assert recorder.calls == 0


@pytest.mark.parametrize(
    "register",
    [
        global_hooks.register_module_forward_hook,
        global_hooks.register_module_forward_pre_hook,
    ],
    ids=["forward", "forward_pre"],
)
def test_global_hooks_are_not_called_by_the_probe(register):
    model, recorder = two_blocks(), Recorder()
    handle = register(recorder)
    try:
        exda.patch(model)
    finally:
        handle.remove()
    assert recorder.calls == 0


def test_earlier_gradients_are_kept():
    model = two_blocks()
    model(image()).sum().backward()
    with unchanged(model):
        exda.plan(model)
    kept = {name: parameter.grad for name, parameter in model.named_parameters()}
    exda.patch(model)
    assert all(model.get_parameter(name).grad is grad for name, grad in kept.items())


def test_attention_that_cannot_be_copied_is_a_near_miss():
    class Remembers(MDTA):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    model = Net(Remembers(), MDTA())
    model(image())
    (near_miss,) = exda.plan(model).near_misses
    assert near_miss.name == "blocks.0.attn"
    assert "copy" in near_miss.reason
    assert "deepcopy" in near_miss.reason


class TestEmptyWeights:
    """accelerate's init_empty_weights puts every parameter that a module registers on the meta device."""

    def test_model_built_inside_is_patched_on_meta(self):
        import accelerate

        with accelerate.init_empty_weights():
            model = two_blocks()
            assert len(exda.patch(model).matches) == 2
            exda.fuse(restormer())
        assert all(parameter.is_meta for parameter in model.parameters())
        other = two_blocks()
        exda.patch(other)
        model.load_state_dict(other.state_dict(), assign=True)
        x = image()
        assert torch.equal(model(x), other(x))

    def test_model_with_weights_is_refused(self):
        import accelerate

        model = two_blocks()
        with accelerate.init_empty_weights(), unchanged(model, random_numbers=False):
            assert len(exda.plan(model).matches) == 2
            with pytest.raises(exda.ConfigError, match=r"blocks\.0\.attn: its new .* on meta.*init_empty_weights"):
                exda.patch(model)


def test_parameters_made_in_inference_mode_train():
    model = two_blocks()
    with torch.inference_mode():
        exda.patch(model)
    model(image()).sum().backward()
    assert all(parameter.grad is not None for parameter in exda.new_parameters(model))
