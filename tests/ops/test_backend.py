"""``exda.backend``: which implementation it selects, for which thread or task, and until when."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.fusion.blocks import Block
from torch import nn
from torch._dynamo.testing import CompileCounter

import exda_primitives as exda
from exda_primitives import ops
from exda_primitives.ops.dispatch import current_backend


@pytest.fixture
def used(make_attention, make_maps, monkeypatch):
    """A function that calls an attention and names the implementation that ran."""
    module, maps = make_attention("mdta"), make_maps("mdta", 1, 6, 3, 2)
    calls = []
    noted = {name: lambda x, _, name=name: calls.append(name) or x for name in ("reference", "torch", "triton")}
    for name, function in noted.items():
        monkeypatch.setitem(ops.mdta.functions, name, function)
    # "auto" calls this directly for maps too small for strips.
    monkeypatch.setattr("exda_primitives.ops.torch.mdta", noted["torch"])

    def used():
        module(*maps)
        return calls[-1]

    return used


@pytest.mark.parametrize(
    ("name", "expected"),
    [("reference", "reference"), ("torch", "torch"), ("auto", "torch"), ("triton", "triton")],
)
def test_block_selects_the_implementation(used, name, expected):
    with exda.backend(name):
        assert used() == expected


def test_default_is_concat_free(used):
    assert used() == "torch"


def test_blocks_nest(used):
    with exda.backend("reference"):
        with exda.backend("torch"):
            assert used() == "torch"
        assert used() == "reference"
    assert used() == "torch"


def test_exception_restores_the_default(used):
    with pytest.raises(KeyError), exda.backend("reference"), exda.backend("reference"):
        raise KeyError
    assert used() == "torch"


@pytest.mark.parametrize("name", ["Reference", "cuda", "", None])
def test_unknown_name_is_an_error_that_lists_the_known(used, name):
    with pytest.raises(ValueError, match=r"unknown backend; known are 'auto', 'reference', 'torch', 'triton'") as error:
        exda.backend(name).__enter__()
    assert repr(name) in str(error.value)
    assert used() == "torch"


def test_unknown_name_keeps_the_outer_backend(used):
    with exda.backend("reference"):
        with pytest.raises(ValueError, match="'cuda'"), exda.backend("cuda"):
            pass
        assert used() == "reference"


def test_backend_works_as_a_decorator(make_attention, make_maps):
    module, maps = make_attention("cross"), make_maps("cross", 1, 6, 3, 2)

    @exda.backend("reference")
    def oracle():
        return module(*maps)

    with exda.backend("reference"):
        assert torch.equal(oracle(), module(*maps))


@pytest.fixture
def attention_and_map(make_attention, make_maps):
    """An attention and an input map, (1, 6, 6, 5)."""
    return make_attention("mdta"), *make_maps("mdta", 1, 6, 6, 5)


class TestThreadsAndTasks:
    """Each thread and each task has its own backend, in whatever order its blocks are left."""

    def test_blocks_may_be_left_in_the_order_they_were_entered(self, used):
        first, second = exda.backend("reference"), exda.backend("torch")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert used() == "torch"
        second.__exit__(None, None, None)
        assert current_backend() == "auto"

    def test_each_task_has_its_own_backend(self):
        seen = []

        async def compute(name):
            with exda.backend(name):
                for _ in range(3):
                    seen.append((name, current_backend()))
                    await asyncio.sleep(0)
            seen.append(("auto", current_backend()))

        async def compute_all():
            await asyncio.gather(compute("reference"), compute("torch"), compute("triton"))
            assert current_backend() == "auto"

        asyncio.run(compute_all())
        assert len(seen) == 12
        assert all(own == found for own, found in seen)

    def test_each_thread_has_its_own_backend(self):
        seen, barrier = {}, threading.Barrier(3)

        def compute(name):
            barrier.wait(5)
            before = current_backend()
            with exda.backend(name):
                barrier.wait(5)
                seen[name] = before, current_backend()
                barrier.wait(5)

        threads = [threading.Thread(target=compute, args=(name,)) for name in ("reference", "torch", "triton")]
        with exda.backend("reference"):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
            assert current_backend() == "reference"
        assert seen == {name: ("auto", name) for name in ("reference", "torch", "triton")}

    def test_generator_closed_in_another_context_leaves_the_default(self):
        def computing():
            with exda.backend("reference"):
                yield current_backend()

        generator = computing()
        assert contextvars.copy_context().run(next, generator) == "reference"
        generator.close()
        assert current_backend() == "auto"

    @pytest.mark.parametrize("fused", [False, True], ids=["attention", "fused"])
    def test_replicas_compute_with_the_backend_of_their_caller(self, fused, attention_and_map, monkeypatch):
        module, x = attention_and_map
        if fused:
            module = nn.Sequential(Block())
            exda.fuse(module)
            module, x = module[0], torch.randn(1, 8, 5, 7)
        seen = []
        monkeypatch.setattr(type(module), "forward", lambda *_: seen.append(current_backend()))
        with exda.backend("reference"):
            replicas = [module._replicate_for_data_parallel() for _ in range(2)]
        replicas.append(module._replicate_for_data_parallel())
        for replica in replicas:
            thread = threading.Thread(target=replica, args=(x,))
            thread.start()
            thread.join(10)
        assert seen == ["reference", "reference", "auto"]

    @pytest.mark.skipif(
        not hasattr(torch._C, "_remove_obj_from_tls"), reason="this PyTorch passes no context to autograd's threads"
    )
    def test_threads_of_autograd_inherit_the_backend(self):
        # On a GPU, backward runs in a thread of autograd. On a CPU it does so only if it calls itself more than 60
        # levels deep (MAX_DEPTH in PyTorch's autograd/engine.h): here 70.
        seen = []

        class Deep(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, depth):
                ctx.depth = depth
                return 1.0 * x

            @staticmethod
            def backward(ctx, gradient):
                seen.append((threading.get_ident(), current_backend()))
                if not ctx.depth:
                    return gradient, None
                with torch.enable_grad():
                    x = torch.ones((), requires_grad=True)
                    return *torch.autograd.grad(Deep.apply(x, ctx.depth - 1), x, gradient), None

        with exda.backend("reference"):
            Deep.apply(torch.ones((), requires_grad=True), 70).backward()
        assert next(name for thread, name in seen if thread != threading.get_ident()) == "reference"


@pytest.mark.usefixtures("fresh_dynamo")
class TestCompiled:
    """A compiled function uses the backend of its caller, and is compiled once for each backend."""

    @torch.no_grad()
    def test_function_is_compiled_once_for_each_backend(self, attention_and_map):
        module, x = attention_and_map
        with exda.backend("reference"):
            oracle = module(x)
        concat_free = module(x)
        assert not torch.equal(oracle, concat_free)
        counter = CompileCounter()
        compiled = torch.compile(module, backend=counter, fullgraph=True)
        for name in ("auto", "reference", "auto", "reference"):
            with exda.backend(name):
                assert torch.equal(compiled(x), oracle if name == "reference" else concat_free)
        with ThreadPoolExecutor(1) as pool, exda.backend("reference"):
            assert torch.equal(pool.submit(lambda: torch.no_grad()(compiled)(x)).result(), concat_free)
        assert counter.frame_count == 2

    @torch.no_grad()
    def test_block_inside_a_compiled_function(self, attention_and_map):
        module, x = attention_and_map

        def oracle(x):
            with exda.backend("reference"):
                first = module(x)
            return first, module(x)

        with exda.backend("torch"):
            expected = oracle(x)
            assert all(map(torch.equal, torch.compile(oracle, backend="eager")(x), expected))
            assert current_backend() == "torch"
        assert not torch.equal(*expected)


def test_thread_without_a_context_has_the_default(monkeypatch):
    monkeypatch.setattr(torch._C, "_is_key_in_tls", lambda key: True)
    monkeypatch.setattr(torch._C, "_get_obj_in_tls", lambda key: None)
    assert current_backend() == "auto"
