"""Cases to time, their order, and the reasons why some cannot run."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.workbench.bench import openvino_stub
from tests.workbench.bench.stubs import COMPARISON, CPU

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.bench import cases
from exda_primitives.workbench.bench.cases import Case, cases_of, comparisons, padded, parse_size, skip_reason

CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("text", "size"), [("256", (256, 256)), ("3840x2160", (2160, 3840)), ("8x16", (16, 8)), ("16x20", (20, 16))]
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "256x", "x256", "0", "-8", "8.0", "8x8x8", "big"])
def test_texts_that_are_no_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=repr(text)):
        parse_size(text)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 8, 16]))
def test_padded_sides_are_the_next_multiples(height: int, width: int, multiple: int) -> None:
    for side, found in zip((height, width), padded((height, width), multiple), strict=True):
        assert found % multiple == 0
        assert side <= found < side + multiple
    assert padded((1079, 1919)) == (1080, 1920)


def test_the_original_is_always_there_and_first() -> None:
    found = [(case.variant, case.mode) for case in cases_of(COMPARISON, ["torch"], ["eager", "captured"])]
    assert found == [("original", "eager"), ("original", "captured"), ("torch", "eager"), ("torch", "captured")]


def test_number_formats_of_one_shape_follow_each_other() -> None:
    found = comparisons(["a", "b"], ["forward"], ["float32", "bf16"], 2, [(8, 16), (16, 16)])
    assert [(each.backbone, each.size, each.precision) for each in found[:3]] == [
        ("a", "16x8", "float32"),
        ("a", "16x8", "bf16"),
        ("a", "16x16", "float32"),
    ]
    assert len(found) == 8
    assert found[0].pixels == 2 * 8 * 16


def test_comparisons_come_in_the_order_of_what_they_tell() -> None:
    sizes = [(1024, 1024), (256, 256), (1000, 1000), (2160, 3840), (512, 512)]
    found = [(e.task, e.backbone, e.height) for e in comparisons("rp", ["forward", "training"], ["bf16"], 1, sizes)]
    # Up to 1024 x 1024 in the order given; 3840 x 2160 comes after everything else.
    small = [1024, 256, 1000, 512]
    assert found == [
        *(("forward", "r", height) for height in small),
        *(("forward", "p", height) for height in small),
        *(("training", "r", height) for height in small),
        *(("training", "p", height) for height in small),
        *(("forward", "r", 2160), ("forward", "p", 2160), ("training", "r", 2160), ("training", "p", 2160)),
    ]


@pytest.mark.parametrize("variant", ["original", "reference", "torch", "fused", "fused-original"])
@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("task", ["forward", "training"])
def test_cases_that_run_on_the_cpu(variant: str, mode: str, task: str) -> None:
    assert skip_reason(Case(replace(COMPARISON, task=task), variant, mode), CPU) is None


def test_a_capture_needs_cuda_and_no_gradients() -> None:
    assert skip_reason(Case(COMPARISON, "original", "captured"), CPU) == "captured: no CUDA device"
    assert skip_reason(Case(COMPARISON, "original", "captured"), CUDA) is None
    training = replace(COMPARISON, task="training")
    assert skip_reason(Case(training, "original", "captured"), CUDA) == "captured: only for the forward pass"


@pytest.mark.parametrize("variant", ["triton", "fused", "fused-original"])
def test_kernels_need_their_hardware(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(COMPARISON, variant, "eager")
    assert skip_reason(case, CPU) == ("triton: no CUDA device" if variant == "triton" else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert skip_reason(case, CUDA) == f"{variant}: needs a GPU of capability 8.0, this one has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert skip_reason(case, CUDA) is None
    assert skip_reason(replace(case, comparison=replace(COMPARISON, task="training")), CUDA) is None


def test_onnxruntime_takes_forward_passes_that_can_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(COMPARISON, "original", "onnxruntime")
    assert skip_reason(case, CPU) is None
    assert skip_reason(replace(case, variant="torch"), CPU) is None
    assert skip_reason(replace(case, variant="fused"), CPU) == "onnxruntime: cannot run fused (no export)"
    training = replace(case, comparison=replace(COMPARISON, task="training"))
    assert skip_reason(training, CPU) == "onnxruntime: only for the forward pass"
    monkeypatch.setattr(cases, "find_spec", lambda package: None)
    assert (skip_reason(case, CPU) or "").startswith("onnxruntime: not installed; run: pip install")


def test_openvino_takes_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_stub.install(monkeypatch)
    case = Case(COMPARISON, "original", "openvino")
    assert skip_reason(case, CPU) is None
    assert skip_reason(replace(case, variant="fused"), CPU) == "openvino: cannot run fused (no export)"
    half = replace(case, comparison=replace(COMPARISON, precision="bf16"))
    for one, device in ((half, CPU), (case, CUDA)):
        assert skip_reason(one, device) == "openvino: only for float32 on a CPU"
    openvino_stub.remove(monkeypatch)
    assert (skip_reason(case, CPU) or "").startswith("openvino: not installed; run: pip install")


def test_number_formats_need_their_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    tf32, bf16 = (Case(replace(COMPARISON, precision=name), "original", "eager") for name in ("tf32", "bf16"))
    assert skip_reason(tf32, CPU) == "tf32: no CUDA device"
    assert skip_reason(bf16, CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert skip_reason(tf32, CUDA) == "tf32: needs a GPU of capability 8.0, this one has 7.5"
    assert skip_reason(bf16, CUDA) == "bf16: needs a GPU of capability 8.0, this one has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert skip_reason(tf32, CUDA) is None
    assert skip_reason(bf16, CUDA) is None


def test_auto_is_skipped_where_it_is_the_same_as_torch() -> None:
    assert skip_reason(Case(COMPARISON, "auto", "eager"), CPU) is None
    training = replace(COMPARISON, task="training")
    for case, device in ((Case(COMPARISON, "auto", "eager"), CUDA), (Case(training, "auto", "eager"), CPU)):
        assert "the same as torch" in str(skip_reason(case, device))
