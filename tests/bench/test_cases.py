"""What is timed, and why some of it cannot run."""

from dataclasses import replace

import pytest
import torch
from tests.bench.stubs import COMPARISON, CPU

from exda_primitives.bench.cases import Case, cases_of, comparisons, parse_size, why_not
from exda_primitives.errors import ConfigError

CUDA = torch.device("cuda")


@pytest.mark.parametrize(("text", "size"), [("256", (256, 256)), ("3840x2160", (2160, 3840)), ("8x16", (16, 8))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "256x", "x256", "0", "-8", "8.0", "8x8x8", "12", "16x20", "big"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match=repr(text)):
        parse_size(text)


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


@pytest.mark.parametrize("variant", ["original", "reference", "torch"])
@pytest.mark.parametrize("mode", ["eager", "compiled"])
@pytest.mark.parametrize("task", ["forward", "training"])
def test_what_runs_anywhere(variant: str, mode: str, task: str) -> None:
    assert why_not(Case(replace(COMPARISON, task=task), variant, mode), CPU) is None


def test_a_capture_needs_cuda_and_no_gradients() -> None:
    assert why_not(Case(COMPARISON, "original", "captured"), CPU) == "captured: no CUDA device"
    assert why_not(Case(COMPARISON, "original", "captured"), CUDA) is None
    training = replace(COMPARISON, task="training")
    assert why_not(Case(training, "original", "captured"), CUDA) == "captured: the forward pass alone"


@pytest.mark.parametrize("variant", ["triton", "fused"])
def test_kernels_need_their_hardware(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(COMPARISON, variant, "eager")
    assert why_not(case, CPU) == f"{variant}: no CUDA device"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert why_not(case, CUDA) == f"{variant}: needs a GPU of capability 8.0, this one has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert why_not(case, CUDA) is None
    assert why_not(replace(case, comparison=replace(COMPARISON, task="training")), CUDA) is None


def test_number_formats_need_their_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    tf32, bf16 = (Case(replace(COMPARISON, precision=name), "original", "eager") for name in ("tf32", "bf16"))
    assert why_not(tf32, CPU) == "tf32: no CUDA device"
    assert why_not(bf16, CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert why_not(tf32, CUDA) == "tf32: needs a GPU of capability 8.0, this one has 7.5"
    assert why_not(bf16, CUDA) == "bf16: needs a GPU of capability 8.0, this one has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert why_not(tf32, CUDA) is None
    assert why_not(bf16, CUDA) is None
