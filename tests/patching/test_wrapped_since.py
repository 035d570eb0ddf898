"""Attentions compiled, wrapped or hooked after patching: unpatch carries this over to the host, or refuses."""

import copy
import pickle
from functools import partial
from types import MethodType

import pytest
import torch
from tests.fusion import blocks as fusion
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize

import exda_primitives as exda
from exda_primitives.patching import ParentHook
from exda_primitives.patching.patch import undo

from .models import image, train_new_parameters, two_blocks
from .tokens import two_blocks as on_tokens
from .unchanged import unchanged

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.fixture(autouse=True)
def _torch_backend():
    with exda.backend("torch"):
        yield


def compiled(module):
    return torch.compile(module, backend="eager")


def in_place(module):
    module.compile(backend="eager")
    return module


WRAPS = {"compiled": compiled, "compiled in place": in_place, "checkpointed": checkpoint_wrapper}
PARTS = ["attention", "block", "blocks", "attention and block"]


def wrap(model, part, kind):
    if "attention" in part:
        for block in model.blocks:
            block.attn = kind(block.attn)
    if part.endswith("block"):
        for index, block in enumerate(list(model.blocks)):
            model.blocks[index] = kind(block)
    elif part == "blocks":
        model.blocks = kind(model.blocks)


def wrappers(model):
    return [id(module) for module in model.modules() if hasattr(module, "_orig_mod") or "Wrapper" in str(type(module))]


def hooks(model):
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if isinstance(getattr(hook, "__self__", hook), ParentHook)
    ]


@pytest.mark.parametrize(
    ("make", "part", "kind"),
    [
        *((two_blocks, part, checkpoint_wrapper) for part in PARTS),
        *((two_blocks, part, compiled) for part in ("attention", "block", "blocks")),
        (two_blocks, "block", in_place),
        *((on_tokens, part, checkpoint_wrapper) for part in ("attention", "model")),
        (on_tokens, "attention", compiled),
    ],
    ids=lambda case: getattr(case, "__name__", case),
)
@torch.no_grad()
def test_unpatch_keeps_wrappers_and_restores_the_output(make, part, kind):
    model, x = make().eval(), image(5, 7)
    host = model(x)
    exda.patch(model)
    train_new_parameters(model)
    patched = model(x)
    wrap(model, part, kind)
    if part == "model" and kind is not in_place:
        model = kind(model)
    torch.testing.assert_close(model(x), patched, rtol=0, atol=1e-5)
    before = wrappers(model)
    assert len(exda.unpatch(model)) == 2
    assert not exda.is_patched(model)
    assert wrappers(model) == before
    assert hooks(model) == []
    torch.testing.assert_close(model(x), host, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "part"),
    [(compiled, "attention"), (checkpoint_wrapper, "attention and block"), (checkpoint_wrapper, "blocks")],
)
@torch.no_grad()
def test_leaving_patched_restores_the_output_under_wrappers(kind, part):
    model, x = two_blocks().eval(), image(5, 7)
    host = model(x)
    with exda.patched(model):
        train_new_parameters(model)
        wrap(model, part, kind)
        assert not torch.allclose(model(x), host, atol=1e-3)
    assert not exda.is_patched(model)
    torch.testing.assert_close(model(x), host, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("part", "kind"), [*(("block", kind) for kind in WRAPS.values()), ("blocks", checkpoint_wrapper)]
)
@torch.no_grad()
def test_unfuse_keeps_wrappers(kind, part):
    model, x = fusion.Net(fusion.Block()).eval(), image(5, 7)
    original = list(model.blocks)
    exda.fuse(model)
    expected = model(x)
    wrap(model, part, kind)
    assert torch.equal(model(x), expected)
    before = wrappers(model)
    assert len(exda.unfuse(model)) == 1
    assert wrappers(model) == before
    held = {id(module) for module in model.modules()}
    assert all(id(block) in held for block in original)
    model.get_parameter(next(name for name, _ in model.named_parameters() if "norm1.weight" in name)).zero_()
    assert not torch.allclose(model(x), expected)


@torch.no_grad()
def test_compiled_wrapper_compiles_the_host():
    model = two_blocks().eval()
    exda.patch(model)
    counter = torch._dynamo.testing.CompileCounter()
    model.blocks[0].attn = torch.compile(model.blocks[0].attn, backend=counter)
    exda.unpatch(model)
    model(image())
    assert counter.frame_count == 1
    assert len(exda.patch(copy.deepcopy(model)).near_misses) == 1


class Wrapping(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 2 * self.inner(x)


def replaced_forward(attention):
    forward = attention.forward
    attention.forward = lambda x: 2 * forward(x)
    return attention


def bound_forward(attention):
    forward = attention.forward

    def doubled(self, x):
        return 2 * forward(x)

    attention.forward = MethodType(doubled, attention)
    return attention


def partial_forward(attention):
    forward = partial(attention.forward)

    def scaled(factor, x):
        def inner():
            return factor * forward(x)

        return inner()

    attention.forward = partial(scaled, 2)
    return attention


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def parametrised(attention):
    return parametrize.register_parametrization(attention, "temperature", Doubled())


def traced(attention):
    return torch.jit.trace(attention, torch.randn(1, 8, 5, 7), check_trace=False)


REFUSED = {
    "forward": (replaced_forward, r"blocks\.1\.attn: its forward was replaced"),
    "forward, bound": (bound_forward, r"blocks\.1\.attn: its forward was replaced"),
    "forward, partial": (partial_forward, r"blocks\.1\.attn: its forward was replaced"),
    "parametrised": (parametrised, r"blocks\.1\.attn: its temperature is no parameter any more"),
    "traced": (traced, r"blocks\.1\.attn: ExDAAttention is scripted or traced"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_unpatch_refuses_and_changes_nothing(change, message):
    model = two_blocks()
    report = exda.patch(model)
    model.blocks[1].attn = change(model.blocks[1].attn)
    for give_back in (exda.unpatch, lambda model: undo(model, report)):
        with unchanged(model), pytest.raises(exda.WrappedModelError, match=message) as error:
            give_back(model)
        assert "Nothing was changed" in str(error.value)


def test_part_in_data_parallel_is_refused():
    model = two_blocks()
    exda.patch(model)
    model.blocks[1].attn = nn.DataParallel(model.blocks[1].attn)
    with unchanged(model), pytest.raises(exda.WrappedModelError, match=r"blocks\.1\.attn: .*Unpatch before wrapping"):
        exda.unpatch(model)


def test_unfuse_refuses_a_block_whose_forward_was_replaced():
    model = fusion.two_blocks()
    exda.fuse(model)
    replaced_forward(model.blocks[1])
    with unchanged(model), pytest.raises(exda.WrappedModelError, match=r"blocks\.1: its forward was replaced"):
        exda.unfuse(model)


@torch.no_grad()
def test_user_defined_wrapper_is_kept():
    model, x = two_blocks().eval(), image(5, 7)
    model.blocks[0].attn = Wrapping(model.blocks[0].attn)
    host = model(x)
    exda.patch(model)
    train_new_parameters(model)
    exda.unpatch(model)
    assert torch.equal(model(x), host)


def twice(attention, x):
    return 2 * type(attention).forward(attention, x)


def twice_by(attention):
    """As ``twice``, with variables that are no obstacle: a recursive function, and one without a value yet."""

    def times(module, x, left):
        return type(module).forward(module, x) if left == 1 else times(module, x, left - 1) + times(module, x, 1)

    def doubled(self, x):
        return times(self, x, 2) if attention else later

    attention = True
    if not attention:
        later = None
    return doubled


@pytest.mark.parametrize("duplicate", [lambda model: model, copy.deepcopy], ids=["itself", "copy"])
@pytest.mark.parametrize(
    "forward",
    [
        lambda attention: MethodType(twice, attention),
        lambda attention: MethodType(twice_by(attention), attention),
        lambda attention: partial(twice, attention),
        lambda attention: partial(MethodType(twice, attention)),
    ],
    ids=["bound", "bound, closes over others", "partial", "partial of bound"],
)
@torch.no_grad()
def test_forward_of_the_user_that_takes_the_module_moves_to_the_host(forward, duplicate):
    model, x = two_blocks().eval(), image(5, 7)
    host = copy.deepcopy(model)
    host.blocks[0].attn.forward = MethodType(twice, host.blocks[0].attn)
    exda.patch(model)
    train_new_parameters(model)
    model.blocks[0].attn.forward = forward(model.blocks[0].attn)
    model = duplicate(model)
    exda.unpatch(model)
    torch.testing.assert_close(model(x), host(x), rtol=0, atol=1e-5)


CALLBACKS = {
    "method": (lambda module: module.parameters, lambda held, module: held.__self__ is module),
    "partial": (lambda module: partial(module.parameters), lambda held, module: held.func.__self__ is module),
    "keyword": (lambda module: partial(print, end=module), lambda held, module: held.keywords["end"] is module),
}


@pytest.mark.parametrize("before", [True, False], ids=["the host had it", "it is new"])
@pytest.mark.parametrize(("bind", "is_bound"), CALLBACKS.values(), ids=CALLBACKS)
@pytest.mark.parametrize(
    ("make", "put", "give_back", "part"),
    [
        (two_blocks, exda.patch, exda.unpatch, "attn"),
        (fusion.two_blocks, exda.fuse, exda.unfuse, None),
    ],
    ids=["patched", "fused"],
)
def test_what_refers_to_the_replacement_refers_to_the_host(make, put, give_back, part, bind, is_bound, before):
    model = make()

    def replaced():
        return getattr(model.blocks[0], part) if part else model.blocks[0]

    if before:
        replaced().callback = None
    put(model)
    replaced().callback = bind(replaced())
    give_back(model)
    assert is_bound(replaced().callback, replaced())


def test_method_that_the_host_lacks_stays_as_it_is():
    model = two_blocks()
    exda.patch(model)
    attention = model.blocks[0].attn
    attention.callback = attention.structural_settings
    exda.unpatch(model)
    assert model.blocks[0].attn.callback.__self__ is attention


class TestHooks:
    """accelerate's hooks, which replace forward on the instance and move weights around every call."""

    @pytest.mark.parametrize("duplicate", [lambda model: model, copy.deepcopy])
    @torch.no_grad()
    def test_move_to_the_host(self, duplicate):
        import accelerate

        model, x = two_blocks().eval(), image(5, 7)
        host = model(x)
        exda.patch(model)
        for attention in (block.attn for block in model.blocks):
            accelerate.hooks.add_hook_to_module(attention, Counting())
        model = duplicate(model)
        counter = model.blocks[0].attn._hf_hook
        model(x)
        exda.unpatch(model)
        torch.testing.assert_close(model(x), host, rtol=0, atol=1e-5)
        assert model.blocks[0].attn._hf_hook is counter
        assert counter.calls == 2
        accelerate.hooks.remove_hook_from_module(model, recurse=True)
        torch.testing.assert_close(model(x), host, rtol=0, atol=1e-5)
        assert counter.calls == 2

    @torch.no_grad()
    def test_load_offloaded_weights_for_the_host(self):
        import accelerate

        model, x = two_blocks().eval(), image(5, 7)
        host = model(x)
        exda.patch(model)
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        assert model.blocks[0].attn.temperature.is_meta
        exda.unpatch(model)
        assert model.blocks[0].attn.temperature.is_meta
        torch.testing.assert_close(model(x), host, rtol=0, atol=1e-5)

    def test_attributes_added_after_patching_move_to_the_host(self):
        model = two_blocks()
        exda.patch(model)
        model.blocks[0].attn.rank = 4
        model = pickle.loads(pickle.dumps(model))
        exda.unpatch(model)
        assert model.blocks[0].attn.rank == 4


class Counting:
    """Counts its calls, with the interface of accelerate's hooks."""

    no_grad = False

    def __init__(self):
        self.calls = 0

    def init_hook(self, module):
        return module

    def pre_forward(self, module, *arguments, **keywords):
        self.calls += 1
        return arguments, keywords

    def post_forward(self, module, output):
        return output

    def detach_hook(self, module):
        return module
