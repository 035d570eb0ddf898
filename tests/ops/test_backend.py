"""``exda.backend``: which implementation runs, and until when."""

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
    """Names the implementation that an attention calls just now."""
    module, maps = make_attention("mdta"), make_maps("mdta", 1, 6, 3, 2)
    calls = []
    noted = {name: lambda x, _, name=name: calls.append(name) or x for name in ("reference", "torch", "triton")}
    for name, function in noted.items():
        monkeypatch.setitem(ops.mdta.functions, name, function)
    # What is computed by default, of small maps.
    monkeypatch.setattr("exda_primitives.ops.torch.mdta", noted["torch"])

    def used():
        module(*maps)
        return calls[-1]

    return used


@pytest.mark.parametrize(
    ("name", "expected"),
    [("reference", "reference"), ("torch", "torch"), ("auto", "torch"), ("triton", "triton")],
)
def test_selects(used, name, expected):
    with exda.backend(name):
        assert used() == expected


def test_default_is_concat_free(used):
    assert used() == "torch"


def test_nests(used):
    with exda.backend("reference"):
        with exda.backend("torch"):
            assert used() == "torch"
        assert used() == "reference"
    assert used() == "torch"


def test_restores_after_an_exception(used):
    with pytest.raises(KeyError), exda.backend("reference"), exda.backend("reference"):
        raise KeyError
    assert used() == "torch"


@pytest.mark.parametrize("name", ["Reference", "cuda", "", None])
def test_unknown_name(used, name):
    with pytest.raises(ValueError, match=r"unknown backend; known are 'auto', 'reference', 'torch', 'triton'") as error:
        exda.backend(name).__enter__()
    assert repr(name) in str(error.value)
    assert used() == "torch"


def test_unknown_name_inside_keeps_the_outer_one(used):
    with exda.backend("reference"):
        with pytest.raises(ValueError, match="'cuda'"), exda.backend("cuda"):
            pass
        assert used() == "reference"


def test_also_decorates(make_attention, make_maps):
    module, maps = make_attention("cross"), make_maps("cross", 1, 6, 3, 2)

    @exda.backend("reference")
    def oracle():
        return module(*maps)

    with exda.backend("reference"):
        assert torch.equal(oracle(), module(*maps))


@pytest.fixture
def plain(make_attention, make_maps):
    """Just an attention and its map."""
    return make_attention("mdta"), *make_maps("mdta", 1, 6, 6, 5)


class TestWhoseItIs:
    """Each thread's and each task's own, in whatever order blocks are left."""

    def test_blocks_left_in_the_order_in_which_they_were_entered(self, used):
        first, second = exda.backend("reference"), exda.backend("torch")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert used() == "torch"
        second.__exit__(None, None, None)
        assert current_backend() == "auto"

    def test_tasks(self):
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

    def test_threads(self):
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

    def test_a_generator_that_another_task_closes(self):
        def computing():
            with exda.backend("reference"):
                yield current_backend()

        generator = computing()
        assert contextvars.copy_context().run(next, generator) == "reference"
        generator.close()
        assert current_backend() == "auto"

    @pytest.mark.parametrize("patched", [False, True], ids=["attention", "fused"])
    def test_replicas_compute_with_their_callers(self, patched, plain, monkeypatch):
        module, x = plain
        if patched:
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
        not hasattr(torch._C, "_remove_obj_from_tls"), reason="this PyTorch hands autograd's threads no context"
    )
    def test_what_autograd_runs_again_in_a_thread_of_its_own(self):
        # As on a GPU; on a CPU, where backward calls backward often enough.
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


class TestCompiled:
    """A compiled function computes by the backend of its caller, and is compiled once for each."""

    @pytest.fixture(autouse=True)
    def _fresh_dynamo(self):
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    @torch.no_grad()
    def test_is_compiled_once_for_each(self, plain):
        module, x = plain
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
    def test_entered_inside(self, plain):
        module, x = plain

        def oracle(x):
            with exda.backend("reference"):
                first = module(x)
            return first, module(x)

        with exda.backend("torch"):
            expected = oracle(x)
            assert all(map(torch.equal, torch.compile(oracle, backend="eager")(x), expected))
            assert current_backend() == "torch"
        assert not torch.equal(*expected)


def test_a_thread_whose_context_is_gone_has_the_default(monkeypatch):
    monkeypatch.setattr(torch._C, "_is_key_in_tls", lambda key: True)
    monkeypatch.setattr(torch._C, "_get_obj_in_tls", lambda key: None)
    assert current_backend() == "auto"
