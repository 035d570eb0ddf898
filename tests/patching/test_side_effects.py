"""plan, patch and fuse run copies of the model: other threads, the compiler and global state see none of it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.fusion import blocks
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrize

import exda_primitives as exda

from .hosts import MDTA
from .models import Net, image, two_blocks
from .unchanged import unchanged

counter = CompileCounter()


@torch.compile(backend=counter)
def doubled_and_halved(x):
    return (2 * x) / 2


class CompiledForward(MDTA):
    @torch.compile(backend=counter)
    def forward(self, x):
        return super().forward(x)


class CompiledMethod(MDTA):
    @torch.compile(backend=counter)
    def attend(self, x):
        return super().forward(x)

    def forward(self, x):
        return self.attend(x)


class CompiledFunction(MDTA):
    def forward(self, x):
        return doubled_and_halved(super().forward(x))


class CompiledFeedForward(blocks.FeedForward):
    @torch.compile(backend=counter)
    def forward(self, x):
        return super().forward(x)


def block(attention=MDTA, ffn=blocks.FeedForward):
    return blocks.Net(blocks.Block(attention=attention, ffn=ffn))


# Adds no parameters, whose random initialisation would draw random numbers.
DRAWS_NOTHING = [exda.ExDAConfig(tokens=0, value="gelu", init="paper")]
CALLS = {"plan": exda.plan, "patch": exda.patch, "fuse": exda.fuse}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(autouse=True)
def _torch_backend():
    # PyTorch operations instead of kernels under Triton's interpreter.
    with exda.backend("torch"):
        yield


def global_state():
    """The global state that a forward pass depends on, as the calling thread sees it."""
    return {
        "hooks": [dict(held) for name, held in vars(global_hooks).items() if "_hooks" in name and held],
        "random numbers": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "modes": torch._C._len_torch_dispatch_stack(),
        "mode for the compiler": torch.utils._python_dispatch.is_in_torch_dispatch_mode(),
        "parametrize": (parametrize._cache_enabled, dict(parametrize._cache)),
        "backend": exda.ops.dispatch.current_backend(),
    }


@calls
def test_another_thread_sees_its_global_state_unchanged(call):
    seen = []

    class Observed(MDTA):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(global_state).result())
            return super().forward(x)

    model = block(Observed)
    handle = global_hooks.register_module_forward_hook(lambda *_: None)
    try:
        with ThreadPoolExecutor(1) as pool:
            before = pool.submit(global_state).result()
        call(model, *DRAWS_NOTHING if call is not exda.fuse else ())
    finally:
        handle.remove()
    assert seen
    for found in seen:
        assert found == before


@calls
def test_concurrent_thread_keeps_its_hooks_and_random_numbers(call):
    # The thread's every call reaches the global hook, and no random number is drawn twice or skipped.
    heard, drawn, done = [], [], threading.Event()
    torch.manual_seed(0)
    expected = torch.rand(200_000)
    layer = nn.Identity()

    def compute():
        while not done.is_set() and len(drawn) < len(expected):
            layer(expected)
            drawn.append(torch.rand(()).item())

    def listen(module, *_):
        if module is layer:
            heard.append(module)

    handle = global_hooks.register_module_forward_hook(listen)
    thread, model = threading.Thread(target=compute), block()
    torch.manual_seed(0)
    try:
        thread.start()
        call(model, *DRAWS_NOTHING if call is not exda.fuse else ())
    finally:
        done.set()
        thread.join(10)
        handle.remove()
    assert len(heard) == len(drawn) > 0
    assert drawn == expected[: len(drawn)].tolist()


class TestRandomNumbers:
    """A host that draws random numbers: compared with equal ones on both sides, the generator as before."""

    def test_block_with_dropout_is_fused(self):
        model = block(ffn=blocks.Dropout)
        with unchanged(model):
            assert len(exda.fuse(model).blocks) == 1
            exda.unfuse(model)

    @pytest.mark.parametrize(
        "draw",
        [torch.rand_like, torch.randn_like, lambda x: torch.rand(x.shape), torch.bernoulli, torch.empty_like],
        ids=["rand_like", "randn_like", "rand", "bernoulli", "dropout"],
    )
    def test_attention_that_draws_in_training_is_a_near_miss(self, draw):
        class Drawing(MDTA):
            def forward(self, x):
                out = super().forward(x)
                if not self.training:
                    return out
                # ``empty_like`` draws nothing and stands for dropout. The sigmoid gives bernoulli probabilities.
                return nn.functional.dropout(out) if draw is torch.empty_like else out + draw(out.sigmoid())

        model = Net(Drawing())
        with unchanged(model):
            (near_miss,) = exda.plan(model).near_misses
        assert "differs" in near_miss.reason
        assert "training mode" in near_miss.reason

    def test_operation_without_a_generator_argument_changes_nothing(self):
        class Drawing(MDTA):
            def forward(self, x):
                return super().forward(x) + 0 * nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

        model = Net(Drawing())
        with unchanged(model):
            assert len(exda.plan(model).matches) + len(exda.plan(model).near_misses) == 1


class TestCompiled:
    """Nothing is compiled for a copy, which would count towards the user's recompilation limit."""

    @pytest.fixture(autouse=True)
    def _fresh_dynamo(self):
        torch.compiler.reset()
        counter.clear()
        yield
        torch.compiler.reset()

    @pytest.mark.parametrize("attention", [CompiledForward, CompiledMethod, CompiledFunction])
    @calls
    @torch.no_grad()
    def test_attention_is_not_compiled_for_a_copy(self, attention, call):
        model, x = block(attention).eval(), image(5, 7)
        call(model)
        assert counter.frame_count == 0
        model(x)
        if call is exda.plan:
            # The model's own forward is still compiled.
            assert counter.frame_count == 1

    @torch.no_grad()
    def test_feed_forward_is_not_compiled_for_a_copy(self):
        model, x = block(ffn=CompiledFeedForward), image(5, 7)
        expected = model(x)
        counter.clear()
        assert len(exda.fuse(model).blocks) == 1
        assert counter.frame_count == 0
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)

    def test_modules_compiled_as_a_whole_are_not_compiled_for_a_copy(self):
        model = block()
        model.blocks[0].attn.compile(backend=counter)
        model.blocks[0].ffn = torch.compile(model.blocks[0].ffn, backend=counter)
        exda.plan(model)
        exda.fuse(model)
        assert counter.frame_count == 0


class TestParametrized:
    """``parametrize.cached()`` caches what the model computes, not what a copy with random weights did."""

    @pytest.fixture
    def model(self):
        class Doubled(nn.Module):
            def forward(self, weight):
                return 2 * weight

        model = block().eval()
        attention = model.blocks[0].attn
        parametrize.register_parametrization(attention.qkv, "weight", Doubled())
        parametrize.register_parametrization(attention.project_out, "weight", Doubled())
        parametrize.register_parametrization(model.blocks[0].ffn.project_in, "weight", Doubled())
        return model

    @calls
    @torch.no_grad()
    def test_call_inside_cached_preserves_the_output(self, model, call):
        x = image(5, 7)
        expected = model(x)
        with parametrize.cached():
            call(model)
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_plan_keeps_what_was_cached_before(self, model):
        x = image(5, 7)
        with parametrize.cached():
            expected = model(x)
            kept = dict(parametrize._cache)
            exda.plan(model)
            assert parametrize._cache == kept
            assert torch.equal(model(x), expected)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.autograd.set_detect_anomaly])
@calls
def test_recognition_works_in_other_autograd_modes(mode, call):
    model = block().eval()
    x = image(5, 7)
    expected = model(x).detach()
    with mode(True) if mode is torch.autograd.set_detect_anomaly else mode():
        report = call(model)
    assert len(report.blocks if call is exda.fuse else report.matches) == 1
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_recognition_works_with_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    try:
        model = two_blocks()
        assert len(exda.patch(model).matches) == 2
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_recognition_works_with_another_default_device_and_dtype(device, dtype):
    model = block()
    torch.set_default_device(device)
    torch.set_default_dtype(dtype)
    try:
        assert len(exda.plan(model).matches) == 1
        assert len(exda.fuse(model).blocks) == 1
        exda.patch(model)
        exda.unfuse(model)
        exda.unpatch(model)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert not any(parameter.is_meta for parameter in model.parameters())
