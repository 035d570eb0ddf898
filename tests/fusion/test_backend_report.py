"""``backend_report`` says what computes each part and why, and that is what computes it."""

import json
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import exda_primitives as exda
from exda_primitives.ops import triton, triton_or_torch
from exda_primitives.ops.triton import launch

from .blocks import Block, FeedForward, Histogram, Net, NoParameters, depthwise, patch_randomly, two_blocks

FEATURE = (1, 8, 5, 7)


@pytest.fixture
def _no_interpreter(monkeypatch):
    """Kernels refuse the CPU, as without TRITON_INTERPRET=1."""
    monkeypatch.setattr(launch, "INTERPRETED", False)


def fused(*blocks, patched=False):
    model = nn.Sequential(*(blocks or (Block(),)))
    if patched:
        patch_randomly(model)
    exda.fuse(model)
    return model


def reported(model, *size):
    """Backend and reason that the report gives for each part, by the part's name."""
    return {part.name: (part.backend, part.reason or "") for part in exda.backend_report(model, *size).parts}


@torch.no_grad()
def steps_on_kernels(model, ran, x=None):
    """Calls the model; returns the names of the steps that kernels computed."""
    ran.clear()
    model(torch.randn(FEATURE) if x is None else x)
    return ran


BOTH = {"0.attn": ("triton", ""), "0.ffn": ("triton", "")}


@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_supported_steps_run_on_kernels(backend, patched, ran_as_formulas):
    model = fused(patched=patched)
    with exda.backend(backend):
        assert reported(model) == BOTH
        assert steps_on_kernels(model, ran_as_formulas) == ["attention_step", "gated_step"]


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_other_backends_call_modules(backend, ran_as_formulas):
    model = fused()
    with exda.backend(backend):
        report = exda.backend_report(model)
        assert report.backend == backend
        assert reported(model) == dict.fromkeys(BOTH, ("modules", f"the backend is {backend!r}"))
        assert steps_on_kernels(model, ran_as_formulas) == []


def test_attention_of_a_step_left_to_modules_is_reported_too(ran_as_formulas):
    model = fused(patched=True)
    with exda.backend("reference"):
        parts = exda.backend_report(model).parts
        assert [(part.name, part.what, part.backend) for part in parts] == [
            ("0.attn", "step: attention", "modules"),
            ("0.ffn", "step: gated feed-forward", "modules"),
            ("0.attn", "ExDAAttention", "reference"),
        ]
        assert parts[2].reason == "it is asked for"
        assert steps_on_kernels(model, ran_as_formulas) == []


def test_attention_outside_fused_blocks():
    model = patch_randomly(nn.Sequential(Block()))
    assert reported(model) == {"0.attn": ("torch", "only fused blocks and exda.backend('triton') use the kernels")}
    with exda.backend("triton"):
        assert reported(model) == {"0.attn": ("triton", "")}


def test_report_of_a_model_neither_patched_nor_fused_is_empty():
    report = exda.backend_report(two_blocks())
    assert report.parts == ()
    assert str(report) == "backend 'auto', 0 parts"


@pytest.mark.usefixtures("_no_interpreter")
def test_kernels_refuse_the_cpu(ran_as_formulas):
    model = fused(patched=True)
    reason = "the tensor is on cpu; the kernels need a CUDA GPU"
    first, second, attention = exda.backend_report(model).parts
    assert [first.backend, second.backend, attention.backend] == ["modules", "modules", "torch"]
    assert reason in first.reason
    assert reason in second.reason
    with exda.backend("triton"):
        assert reason in str(exda.backend_report(model).parts[2])
    assert steps_on_kernels(model, ran_as_formulas) == []


@pytest.mark.usefixtures("_no_interpreter")
@pytest.mark.parametrize(("capability", "reason"), [((7, 5), "compute capability (7, 5)"), ((9, 0), "")])
def test_compute_capability_decides(capability, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    on_cuda, ask = SimpleNamespace(device=torch.device("cuda", 0)), launch.device_unsupported_reason
    # Imported by their full names: as attributes of the package, these names are functions.
    for kernel in ("channel", "norm"):
        monkeypatch.setattr(
            import_module(f"{triton.__name__}.{kernel}"), "device_unsupported_reason", lambda x: ask(on_cuda)
        )
    for backend, why in reported(fused()).values():
        assert backend == ("modules" if reason else "triton")
        assert reason in why


def test_without_triton(monkeypatch, ran_as_formulas):
    monkeypatch.setattr(triton_or_torch, "_MISSING", "Triton is not installed")
    model = fused()
    assert reported(model) == dict.fromkeys(BOTH, ("modules", "Triton is not installed"))
    assert steps_on_kernels(model, ran_as_formulas) == []


def test_map_with_too_long_a_side(ran_as_formulas):
    model = fused(patched=True)
    assert reported(model, 1, 32767) == BOTH
    (_, step, reason), (_, *ffn), _ = (
        (p.name, p.backend, p.reason) for p in exda.backend_report(model, 1, 32768).parts
    )
    assert step == "modules"
    assert "at most 32767 pixels a side" in reason
    assert ffn == ["triton", None]
    assert steps_on_kernels(model, ran_as_formulas, torch.randn(1, 8, 1, 32768)) == ["gated_step"]


@pytest.mark.parametrize(
    ("part", "left"),
    [("norm1", ["gated_step"]), ("attn", ["gated_step"]), ("norm2", ["attention_step"]), ("ffn", ["attention_step"])],
)
def test_hooked_part_is_left_to_modules(part, left, ran_as_formulas):
    model = fused()
    model[0].get_submodule(part).register_forward_hook(lambda *_: None)
    found = [why for backend, why in reported(model).values() if backend == "modules"]
    assert found == [f"{part} has hooks"]
    assert steps_on_kernels(model, ran_as_formulas) == left


@pytest.mark.parametrize("part", ["project_in", "dwconv", "project_out"])
def test_parametrised_convolution_of_the_feed_forward(part, ran_as_formulas):
    model = fused()
    nn.utils.parametrizations.weight_norm(getattr(model[0].ffn, part))
    backend, why = reported(model)["0.ffn"]
    assert backend == "modules"
    assert why == f"ffn.{part} is ParametrizedConv2d now"
    assert steps_on_kernels(model, ran_as_formulas) == ["attention_step"]


@pytest.mark.parametrize(
    ("options", "reason"), [({"kernel": 5}, "kernel_size=(5, 5)"), ({"dilation": 2}, "padding=(2, 2)")]
)
def test_feed_forward_with_another_convolution(options, reason, ran_as_formulas):
    model = fused(Block(ffn=partial(FeedForward, local=partial(depthwise, **options))))
    backend, why = reported(model)["0.ffn"]
    assert (backend, reason in why) == ("modules", True)
    assert steps_on_kernels(model, ran_as_formulas) == ["attention_step"]


def test_value_after_the_aggregation(ran_as_formulas):
    model = fused()
    exda.patch(model, exda.ExDAConfig(value_position="after"))
    first, _, attention = exda.backend_report(model).parts
    assert first.backend == "modules"
    assert "the value comes after the aggregation" in first.reason
    assert attention.backend == "torch"
    assert steps_on_kernels(model, ran_as_formulas) == ["gated_step"]


def test_histogram_attention_keeps_its_norm_on_kernels(ran_as_formulas):
    model = fused(Block(NoParameters, Histogram), patched=True)
    with exda.backend("triton"):
        assert [(part.name, part.what, part.backend, part.reason) for part in exda.backend_report(model).parts] == [
            ("0.attn", "step: any function", "triton", None),
            ("0.ffn", "step: gated feed-forward", "triton", None),
            ("0.attn", "ExDAHistogramAttention", "torch", "there are no kernels for ExDAHistogramAttention"),
        ]
    assert steps_on_kernels(model, ran_as_formulas) == ["normalise", "gated_step"]


def test_attention_replaced_by_one_of_another_kind(ran_as_formulas):
    model = fused()
    model[0].attn = exda.ExDAHistogramAttention(8, 2)
    assert reported(model)["0.attn"][0] == "torch"
    assert "attn is ExDAHistogramAttention now" in exda.backend_report(model).parts[0].reason
    assert steps_on_kernels(model, ran_as_formulas) == ["gated_step"]


def test_autocast(ran_as_formulas):
    model = fused()
    with torch.autocast("cpu", torch.bfloat16):
        assert reported(model) == BOTH
        assert steps_on_kernels(model, ran_as_formulas) == ["attention_step", "gated_step"]
        model[0].attn.qkv.register_forward_hook(lambda *_: None)
        assert "under autocast" in reported(model)["0.attn"][1]
        assert steps_on_kernels(model, ran_as_formulas) == ["gated_step"]
    assert reported(model) == BOTH


class TestDtypes:
    def test_unsupported_dtype(self):
        model = fused()
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.float8_e4m3fn)
        assert all("the dtype is torch.float8_e4m3fn" in why for _, why in reported(model).values())

    @pytest.mark.usefixtures("_no_interpreter")
    def test_float64_without_the_interpreter(self):
        assert all("the dtype is torch.float64" in why for _, why in reported(fused().double()).values())

    def test_part_of_another_dtype_than_the_map(self, ran_as_formulas):
        model = fused()
        model[0].ffn.bfloat16()
        assert reported(model)["0.attn"][0] == "triton"
        assert reported(model)["0.ffn"] == ("modules", "the map is torch.float32, the feed-forward is torch.bfloat16")
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            steps_on_kernels(model, ran_as_formulas)
        assert ran_as_formulas == ["attention_step"]

    @torch.no_grad()
    def test_norms_kept_in_float32(self, ran):
        # As networks in half precision often are: the norm's parameters are float32, its output bfloat16.
        model = fused().bfloat16()
        for norm in (model[0].norm1, model[0].norm2):
            norm.float()
        assert reported(model) == BOTH
        assert model(torch.randn(FEATURE, dtype=torch.bfloat16)).dtype is torch.bfloat16
        assert ran == ["attention_step", "gated_step"]


class TestReport:
    def test_report_is_plain_data(self):
        report = exda.backend_report(fused(patched=True)).as_dict()
        assert json.loads(json.dumps(report)) == {
            "backend": "auto",
            "parts": [
                {"name": "0.attn", "what": "step: attention", "backend": "triton", "reason": None},
                {"name": "0.ffn", "what": "step: gated feed-forward", "backend": "triton", "reason": None},
            ],
        }

    def test_text_groups_equal_parts(self):
        model = Net(Block(), Block())
        exda.fuse(model)
        with exda.backend("torch"):
            assert str(exda.backend_report(model)).splitlines() == [
                "backend 'torch', 4 parts",
                "  2 x step: attention: modules, because the backend is 'torch'",
                "  2 x step: gated feed-forward: modules, because the backend is 'torch'",
            ]

    def test_text_of_a_part(self):
        part = exda.backend_report(fused()).parts[0]
        assert str(part) == "0.attn (step: attention): triton"

    def test_report_of_a_compiled_model_and_of_a_block(self):
        model = fused()
        assert exda.backend_report(torch.compile(model)) == exda.backend_report(model)
        assert [part.name for part in exda.backend_report(model[0]).parts] == ["attn", "ffn"]

    def test_report_computes_nothing(self, ran_as_formulas, monkeypatch):
        model = fused(patched=True)
        monkeypatch.setattr(triton, "mdta", None)
        exda.backend_report(model, 10**4, 10**4)
        assert ran_as_formulas == []

    def test_report_of_a_network_built_from_exda_attentions(self):
        attention = exda.ExDACrossAttention(8, 2)
        with exda.backend("triton"):
            assert reported(nn.Sequential(attention)) == {"0": ("triton", "")}
