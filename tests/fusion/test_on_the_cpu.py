"""Fused blocks computed on a CPU: as exact as the block's modules, and with the same layouts and behaviour."""

import copy
import math
from functools import partial

import pytest
import torch
from tests.ops.test_agreement import CASES
from tests.patching.hosts import MDTA
from torch import nn
from torch.func import functional_call, jvp, vmap

import exda_primitives as exda
from exda_primitives.fusion.block import FusedBlock
from exda_primitives.ops.cpu import strips
from exda_primitives.ops.cpu import unsupported as cpu_steps

from .blocks import (
    BOTH_STEPS,
    BiasFree,
    Block,
    FeedForward,
    Histogram,
    NoParameters,
    WithBias,
    feature,
    patch_randomly,
    small_block,
    two_blocks,
)

# A value after the aggregation is not fused on the CPU.
VALUE_BEFORE = [case for case in CASES if case.position == "before"]


@pytest.fixture(autouse=True)
def _as_on_a_gpu():
    """Replaces conftest's fixture of this name: here nothing stands in for a GPU."""


@pytest.fixture
def _short_strips(monkeypatch):
    """Cuts even small maps into strips: of a few rows, or of a few images if these are small enough."""
    monkeypatch.setattr(strips, "_BYTES", 8000)


def fused(*blocks, patched=False, dtype=torch.float32):
    model = nn.Sequential(*(blocks or (small_block(),)))
    if patched:
        patch_randomly(model)
    exda.fuse(model.to(dtype))
    return model


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def prepared(case, norm):
    """A block with the case's attention, and its input, in float64."""
    dim = case.heads * case.channels
    host = Block(partial(norm, dim), partial(MDTA, dim, case.heads, case.bias), partial(FeedForward, dim, 3, case.bias))
    model = nn.Sequential(host)
    exda.patch(model, exda.ExDAConfig(**case.options, init="paper"))
    return randomised(model).double(), feature(case.height, case.width, case.batch, torch.float64, dim)


@pytest.mark.usefixtures("_short_strips")
@pytest.mark.parametrize("case", VALUE_BEFORE, ids=str)
@torch.no_grad()
def test_outputs_agree_in_float64(case, ran):
    model, x = prepared(case, BiasFree if case.bias else WithBias)
    with exda.backend("reference"):
        expected = model(x)
    exda.fuse(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    assert ran == BOTH_STEPS


@pytest.mark.parametrize("case", VALUE_BEFORE, ids=str)
def test_gradients_agree_in_float64(case, ran, differentiate, relative_errors):
    model, x = prepared(case, BiasFree if case.bias else WithBias)
    expected = differentiate(model, (x,), "reference")
    exda.fuse(model)
    errors = relative_errors(differentiate(model, (x,), "auto"), expected)
    assert ran == BOTH_STEPS
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.usefixtures("_short_strips")
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("norm", [WithBias, BiasFree])
@pytest.mark.parametrize("case", VALUE_BEFORE[::3], ids=str)
@torch.no_grad()
def test_bfloat16_errs_hardly_more_than_the_modules(case, norm, autocast, ran):
    model, x = prepared(case, norm)
    expected = model(x)
    model, x = (model.float(), x.float()) if autocast else (model.bfloat16(), x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        by_modules = model(x)
        exda.fuse(model)
        found = model(x)
    assert ran == BOTH_STEPS
    assert found.dtype is by_modules.dtype is x.dtype
    error, by_modules = ((each.double() - expected).norm() / expected.norm() for each in (found, by_modules))
    # 2**-9 relative: even an exact step rounds its output to bfloat16 once.
    assert error <= 1.3 * by_modules + 2**-9


@pytest.mark.parametrize("norm", [WithBias, BiasFree, lambda _: NoParameters(), lambda _: NoParameters(False)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.usefixtures("_short_strips")
def test_float32_errs_hardly_more_than_the_modules(norm, bias, patched, ran, differentiate, relative_errors):
    # Compares float32's distances from float64, of outputs and gradients: the fused block's and its modules'.
    dim = 16
    host = Block(partial(norm, dim), partial(MDTA, dim, bias=bias), partial(FeedForward, dim, 21, bias))
    model, x = nn.Sequential(host), feature(17, 33, 2, dim=dim)
    if patched:
        patch_randomly(model)
    expected = differentiate(copy.deepcopy(model).double(), (x.double(),), "reference")
    by_modules = relative_errors(differentiate(model, (x,), "torch"), expected)
    exda.fuse(model)
    by_strips = relative_errors({"output": model.requires_grad_(False)(x)}, {"output": expected["output"]})
    as_a_whole = relative_errors(differentiate(model.requires_grad_(), (x,), "auto"), expected)
    assert ran == 2 * BOTH_STEPS
    assert by_strips["output"] < 1.5 * by_modules["output"]
    # Measured over 12 blocks: for all gradients together 0.98 to 1.51 times the modules', each a few roundings.
    assert math.hypot(*as_a_whole.values()) < 2 * math.hypot(*by_modules.values())


class TestLayouts:
    """A block's output has the memory format of its input, since hosts call ``view`` on it."""

    @pytest.mark.usefixtures("_short_strips")
    @torch.no_grad()
    def test_output_keeps_the_memory_format_of_the_input(self, ran):
        model, x = fused(dtype=torch.float64), feature(9, 7, 2, torch.float64)
        expected = model(x)
        assert expected.is_contiguous()
        found = model(x.to(memory_format=torch.channels_last))
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        larger = x.new_zeros(4, 6, 12, 9)
        larger[::2, 1:5, 3:, 1:8] = x
        found = model(larger[::2, 1:5, 3:, 1:8])
        assert found.is_contiguous()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert ran == 3 * BOTH_STEPS

    @pytest.fixture
    def layouts(self, monkeypatch):
        """Whether each block's input was channels_last, in the order of the calls."""
        seen = []

        def noted(block, x, forward=FusedBlock.forward):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return forward(block, x)

        monkeypatch.setattr(FusedBlock, "forward", noted)
        return seen

    @pytest.mark.parametrize("copied", [False, True])
    @torch.no_grad()
    def test_blocks_of_a_sequence_hand_on_channels_last(self, copied, layouts):
        model, x = fused(*(small_block() for _ in range(3)), patched=True), feature(9, 7, 2)
        if copied:
            model = copy.deepcopy(model)
        found = model(x)
        assert layouts == [False, True, True]
        assert found.is_contiguous()
        for block in model:
            # Called by itself, each has its input in the layout that hosts expect.
            x = block(x).contiguous()
        assert torch.equal(found, x)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda model: model[1].register_forward_pre_hook(lambda *_: None), [False, False, False]),
            (lambda model: model[0].register_forward_hook(lambda *_: None), [False, False, True]),
            (lambda model: setattr(model, "1", model[1].host), [False, False]),
            (lambda model: model.insert(1, model[2]), [False, True, False, True]),
            (lambda model: torch.set_grad_enabled(True), [False, False, False]),
        ],
        ids=["hook before", "hook after", "no fused block", "a block twice", "gradients"],
    )
    @torch.no_grad()
    def test_what_may_tell_the_layouts_apart_gets_a_contiguous_map(self, change, expected, layouts):
        model, x = fused(*(small_block() for _ in range(3))), feature(9, 7, 2)
        change(model)
        assert model(x).is_contiguous()
        assert layouts == expected

    @pytest.mark.parametrize("part", ["ffn", "ffn.project_in"])
    @torch.no_grad()
    def test_modules_of_a_block_that_is_handed_a_map_get_a_contiguous_one(self, part, ran):
        model, x, seen = fused(small_block(), small_block()), feature(9, 7, 2), []
        expected = model(x)
        # A hook on a part leaves the step to the modules.
        hooked = model[1].get_submodule(part)
        hooked.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous()))
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-6)
        assert seen == [True]

    @torch.no_grad()
    def test_module_after_a_fused_step_gets_a_contiguous_map(self, ran):
        class Viewing(FeedForward):
            def forward(self, x):
                return super().forward(x.view(*x.shape[:2], -1).view(x.shape))

        model = fused(Block(ffn=Viewing))
        model[0].ffn.register_forward_hook(lambda *_: None)
        assert model(torch.randn(1, 8, 5, 6)).is_contiguous()
        assert ran == ["attention_step"]

    @torch.no_grad()
    def test_layout_of_weights_does_not_matter(self, ran):
        model, x = fused(dtype=torch.float64), feature(dtype=torch.float64)
        expected = model(x)
        for parameter in model.parameters():
            parameter.data = parameter.data.mT.contiguous().mT if parameter.ndim == 2 else parameter.data.clone()
        for layer in (model[0].attn.qkv, model[0].ffn.project_out):
            layer.weight.data = layer.weight.data.transpose(0, 1).contiguous().transpose(0, 1)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(model.float()(x.float()).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("_short_strips")
@torch.no_grad()
def test_input_is_not_changed_and_two_runs_agree_bit_for_bit():
    model = fused(patched=True)
    for x in (feature(9, 8), feature(9, 8).to(memory_format=torch.channels_last)):
        before = x.clone()
        assert torch.equal(model(x), model(x))
        assert torch.equal(x, before)


@torch.no_grad()
def test_rows_of_zeros_give_finite_results():
    model = fused(dtype=torch.float64, patched=True)
    model[0].attn.qkv.weight[:4] = 0
    x = feature(dtype=torch.float64)
    with exda.backend("reference"):
        expected = model(x)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    model.requires_grad_()
    with torch.enable_grad():
        model(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_second_derivatives_match_finite_differences():
    model, x = fused(patched=True, dtype=torch.float64), feature(3, 4, 1, torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(model, (x,), fast_mode=True)


@torch.no_grad()
def test_empty_batch_is_left_to_modules(ran):
    model = fused()
    with exda.backend("torch"):
        expected = model(feature(batch=0)).shape
    assert model(feature(batch=0)).shape == expected
    assert ran == []


class TestChosen:
    """What computes a step follows from the device, the backend and its parts as they are now."""

    def reported(self, model):
        parts = [part for part in exda.backend_report(model).parts if part.what.startswith("step")]
        return {part.name: (part.backend, part.reason) for part in parts}

    @pytest.mark.parametrize("patched", [False, True])
    @torch.no_grad()
    def test_supported_steps_are_computed_by_strips(self, patched, ran):
        model = fused(patched=patched)
        assert self.reported(model) == {"0.attn": ("cpu", None), "0.ffn": ("cpu", None)}
        model(feature())
        assert ran == BOTH_STEPS

    @torch.no_grad()
    def test_small_maps_are_left_to_modules_without_gradients(self, monkeypatch, ran):
        monkeypatch.setattr(cpu_steps, "WORTH_STEPS", 512)
        model = fused()
        for height, steps in ((31, []), (32, BOTH_STEPS)):
            model(torch.rand(1, feature().shape[1], height, 16))
            assert ran == steps
        ran.clear()
        reasons = {part.reason for part in exda.backend_report(model, 31, 16).parts if part.what.startswith("step")}
        assert reasons == {"on the CPU, the modules are faster for maps of fewer than 512 pixels"}
        with torch.enable_grad():
            model(torch.rand(1, feature().shape[1], 31, 16))
        assert ran == BOTH_STEPS

    @pytest.mark.parametrize(
        ("backend", "kind"), [("triton", "triton"), ("torch", "modules"), ("reference", "modules")]
    )
    def test_other_backends(self, backend, kind):
        model = fused()
        with exda.backend(backend):
            assert {found for found, _ in self.reported(model).values()} == {kind}

    @pytest.mark.parametrize(
        ("change", "name", "reason"),
        [
            (lambda block: block.attn.qkv.register_forward_hook(lambda *_: None), "0.attn", "has to be called"),
            (lambda block: setattr(block.attn, "project_out", nn.Identity()), "0.attn", "has to be called"),
            (lambda block: block.ffn.dwconv.register_forward_hook(lambda *_: None), "0.ffn", "ffn.dwconv has hooks"),
            (lambda block: block.norm1.register_forward_hook(lambda *_: None), "0.attn", "norm1 has hooks"),
            (lambda block: block.norm2.double(), "0.ffn", "a parameter is torch.float64"),
            (lambda block: setattr(block.ffn, "project_in", nn.Linear(4, 6)), "0.ffn", "ffn.project_in is Linear now"),
        ],
    )
    def test_hooked_or_replaced_part_leaves_its_step_to_modules(self, change, name, reason):
        model = fused()
        change(model[0])
        found = self.reported(model)
        backend, why = found.pop(name)
        assert backend == "modules"
        assert reason in why
        assert [*found.values()] == [("cpu", None)]

    @pytest.mark.parametrize(
        ("config", "expected"),
        [({"value_position": "after"}, "the value comes after the aggregation"), ({}, None)],
    )
    def test_value_after_the_aggregation_is_left_to_modules(self, config, expected):
        model = fused()
        exda.patch(model, exda.ExDAConfig(**config))
        backend, reason = self.reported(model)["0.attn"]
        assert backend == ("modules" if expected else "cpu")
        assert expected is None or expected in reason

    def test_hooked_primitive_is_called(self):
        model = fused(patched=True)
        model[0].attn.value.register_forward_hook(lambda *_: None)
        assert "the value has to be called" in self.reported(model)["0.attn"][1]

    def test_norm_alone_is_left_to_modules(self):
        model = fused(Block(NoParameters, Histogram))
        assert self.reported(model)["0.attn"] == ("modules", "on the CPU, the norm by itself gains nothing")

    def test_float16_is_left_to_modules(self):
        reason = "the dtype is torch.float16; the CPU computes steps in torch.float32, torch.float64, torch.bfloat16"
        assert self.reported(fused(dtype=torch.float16))["0.ffn"] == ("modules", reason)

    def test_autocast_to_float16_is_left_to_modules(self, ran):
        model = fused()
        with torch.autocast("cpu", torch.float16), torch.no_grad():
            assert "the dtype is torch.float32, autocast to torch.float16" in self.reported(model)["0.attn"][1]
            model(feature())
        assert ran == []

    def test_bfloat16_is_fused_without_gradients_only(self, ran):
        model = fused(dtype=torch.bfloat16)
        model(feature(dtype=torch.bfloat16)).sum().backward()
        assert ran == []
        with torch.no_grad():
            model(feature(dtype=torch.bfloat16))
        assert ran == BOTH_STEPS

    def test_norms_kept_in_float32(self, ran):
        model = fused(dtype=torch.bfloat16)
        for norm in (model[0].norm1, model[0].norm2):
            norm.float()
        with torch.no_grad():
            assert model(feature(dtype=torch.bfloat16)).dtype is torch.bfloat16
        assert ran == BOTH_STEPS

    def test_processor_without_bfloat16(self, ran, monkeypatch):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
        model = fused(dtype=torch.bfloat16)
        with torch.no_grad():
            assert "bfloat16 for this processor" in self.reported(model)["0.attn"][1]
            model(feature(dtype=torch.bfloat16))
        assert ran == []

    def test_without_onednn_modules_compute(self, ran):
        model = fused()
        with torch.backends.mkldnn.flags(enabled=False):
            assert "oneDNN" in self.reported(model)["0.attn"][1]
            model(feature())
        assert ran == []


@pytest.mark.parametrize("part", ["attn.qkv_dwconv", "ffn.dwconv"])
@pytest.mark.parametrize("patched", [False, True])
@torch.no_grad()
def test_convolution_that_pads_in_another_way_is_called(patched, part):
    model, x = fused(patched=patched, dtype=torch.float64), feature(dtype=torch.float64)
    before = model(x)
    conv = model[0].get_submodule(part)
    # As programs for seamless textures do.
    conv._conv_forward = lambda x, weight, bias: nn.functional.conv2d(
        nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), weight, bias, groups=conv.groups
    )
    found = model(x)
    assert not torch.allclose(found, before)
    with exda.backend("reference"):
        torch.testing.assert_close(found, model(x), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("fresh_dynamo")
class TestTraced:
    """Compiled and exported graphs hold the modules' operations and serve every size."""

    @pytest.fixture
    def model(self):
        return fused(patched=True)

    @torch.no_grad()
    def test_compiled_graph_serves_every_size(self, model, ran):
        whole = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
        for size in ((5, 6), (9, 7)):
            x = feature(*size)
            found = whole(x)
            assert ran == []
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-5)
            ran.clear()

    @torch.no_grad()
    def test_exported_graph_serves_every_size(self, ran):
        model = fused()
        sizes = {2: torch.export.Dim("height", min=2, max=64), 3: torch.export.Dim("width", min=2, max=64)}
        graph = torch.export.export(model, (feature(6, 8),), dynamic_shapes=(sizes,), strict=False).module()
        assert ran == []
        x = feature(9, 7)
        torch.testing.assert_close(graph(x), model(x), rtol=0, atol=1e-5)

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
    @torch.no_grad()
    def test_traced_graph_serves_every_size(self, ran):
        model = fused()
        graph = torch.jit.trace(model, feature(6, 8), check_trace=False)
        assert ran == []
        x = feature(9, 7)
        torch.testing.assert_close(graph(x), model(x), rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_torch_func_transforms_call_modules(self, model, ran):
        x = feature(batch=3)
        torch.testing.assert_close(vmap(lambda one: model(one[None])[0])(x), model(x), rtol=0, atol=1e-5)
        assert ran == BOTH_STEPS
        out, _ = jvp(model, (x,), (x,))
        assert ran == BOTH_STEPS
        torch.testing.assert_close(out, model(x), rtol=0, atol=1e-5)
        parameters = {name: 2 * each for name, each in model.named_parameters()}
        ran.clear()
        found = functional_call(model, parameters, (x,))
        assert ran == BOTH_STEPS
        with exda.backend("torch"):
            torch.testing.assert_close(found, functional_call(model, parameters, (x,)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_network_of_two_blocks(ran):
    model = two_blocks()
    x = torch.rand(1, 3, 9, 7)
    expected = model(x)
    exda.fuse(model)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    assert ran == 2 * BOTH_STEPS
