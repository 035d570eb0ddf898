"""Cases are checked before they are timed, and no case stops the others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tests.workbench.bench import openvino_stub
from tests.workbench.bench.stubs import COMPARISON, CPU, ORIGIN, Altered
from torch import Tensor

from exda_primitives import ops
from exda_primitives.errors import InputError
from exda_primitives.fusion.block import FusedBlock
from exda_primitives.ops import triton_or_torch
from exda_primitives.workbench.bench import check
from exda_primitives.workbench.bench.budget import Budget
from exda_primitives.workbench.bench.cases import Comparison, cases_of
from exda_primitives.workbench.bench.check import Checker
from exda_primitives.workbench.bench.harness import Effort, Harness
from exda_primitives.workbench.bench.networks import Networks
from exda_primitives.workbench.bench.precision import FLOAT32, FLOAT64, PRECISIONS, Precision
from exda_primitives.workbench.bench.record import Record
from exda_primitives.workbench.bench.steps import Bench

TINY = Networks.build("restormer-tiny")
COUNTED = cache(TINY.macs)


@pytest.fixture(autouse=True)
def _counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts operations once: counting the same number in every test would take a third of the time."""
    monkeypatch.setattr(Networks, "macs", lambda self, comparison: COUNTED(comparison))


@pytest.fixture(autouse=True)
def _without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out Triton, whose interpreter is slow."""
    monkeypatch.setattr(triton_or_torch, "_MISSING", "not needed here")


def run(
    comparison: Comparison = COMPARISON,
    variants: tuple[str, ...] = ("reference", "torch"),
    build: Callable[[str], Networks] = lambda _: TINY,
    **options: Any,
) -> dict[str, Record]:
    harness = Harness(CPU, Effort(turns=2, warm_up=0, limit=60), ORIGIN, build)
    records = list(harness.run(comparison, cases_of(comparison, variants, ["eager"]), **options))
    assert len({record.case for record in records}) == len(records)
    return {record.case.variant: record for record in records}


def alter_attention(monkeypatch: pytest.MonkeyPatch, alter: Callable[[Tensor, Any], Tensor]) -> None:
    monkeypatch.setitem(ops.mdta.functions, "torch", Altered(alter))


def statuses(records: dict[str, Record]) -> dict[str, str]:
    return {variant: record.status for variant, record in records.items()}


@pytest.mark.parametrize("task", ["forward", "training"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_correct_cases_are_timed(task: str, precision: str) -> None:
    shares: list[float] = []
    records = run(replace(COMPARISON, task=task, precision=precision), progress=shares.append)
    assert statuses(records) == dict.fromkeys(("original", "reference", "torch"), "timed")
    for record in records.values():
        assert len(record.seconds) == 2
        assert record.ratio is not None
        assert record.peak_bytes
        assert record.check is not None
        assert 0 < record.check.error <= record.check.allowed
    assert records["original"].ratio == 1
    assert records["original"].cost is not None
    assert records["torch"].cost is not None
    assert records["original"].cost.extra_parameters == 0
    assert records["torch"].cost.extra_parameters == TINY.report.extra_parameters > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("task", ["forward", "training"])
def test_wrong_cases_are_not_timed(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    alter_attention(monkeypatch, lambda out, terms: 1.001 * out)
    records = run(replace(COMPARISON, task=task))
    assert statuses(records) == {"original": "timed", "reference": "timed", "torch": "wrong"}
    assert records["torch"].seconds == ()
    assert records["torch"].reason is not None
    assert "2 times the original's own" in records["torch"].reason


def test_nan_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    alter_attention(monkeypatch, lambda out, terms: out * torch.nan)
    assert statuses(run())["torch"] == "wrong"


def test_an_error_at_the_identity_start_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    alter_attention(monkeypatch, lambda out, terms: out if terms.tokens.alpha.any() else 1.01 * out)
    records = run()
    assert statuses(records) == {"original": "timed", "reference": "timed", "torch": "wrong"}
    assert "at identity init" in (records["torch"].reason or "")


def test_an_error_that_rounding_hides_is_found_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    alter_attention(monkeypatch, lambda out, terms: (1 + 1e-4) * out)
    comparison = replace(COMPARISON, precision="bf16")
    # The primitives' effect is large enough to be checked in bf16; beside it, this error is small ...
    assert statuses(run(comparison))["torch"] == "timed"
    # ... but where the effect is too small for bf16, a crop is checked in float64.
    monkeypatch.setattr(check, "MIN_EFFECT", 1e6)
    records = run(comparison)
    assert statuses(records) == {"original": "timed", "reference": "timed", "torch": "wrong"}
    assert "in float64" in (records["torch"].reason or "")
    assert records["reference"].check is not None
    assert "a crop" in records["reference"].check.against


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("none left"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (InputError("not this one"), "skipped"),
        (RuntimeError("a bug"), "error"),
    ],
)
def test_a_case_that_raises_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    def alter(out: Tensor, terms: Any) -> Tensor:
        raise error

    alter_attention(monkeypatch, alter)
    records = run()
    assert statuses(records) == {"original": "timed", "reference": "timed", "torch": status}
    assert str(error) in (records["torch"].reason or "")


def test_a_case_that_raises_while_timed_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def alter(out: Tensor, terms: Any) -> Tensor:
        calls.append(1)
        # 8 attentions per pass: checks with the trained weights and at the identity start, two passes that measure
        # the memory, and the first timed pass.
        if len(calls) > 5 * 8:
            raise torch.OutOfMemoryError("none left")
        return out

    alter_attention(monkeypatch, alter)
    records = run()
    assert statuses(records) == {"original": "timed", "reference": "timed", "torch": "out of memory"}
    assert len(records["reference"].seconds) == 2


def let_references_fit(monkeypatch: pytest.MonkeyPatch, *fitting: str) -> None:
    computed = Checker._reference

    def reference(self: Checker, model: torch.nn.Module, precision: Precision) -> Any:
        if precision.name not in fitting:
            raise torch.OutOfMemoryError("none left")
        return computed(self, model, precision)

    monkeypatch.setattr(Checker, "_reference", reference)


def test_a_reference_too_large_in_float64_is_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    let_references_fit(monkeypatch, "float32")
    records = run(replace(COMPARISON, precision="bf16"))
    assert records["torch"].check is not None
    assert records["torch"].check.against.startswith("float32")


def test_without_a_reference_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    let_references_fit(monkeypatch)
    records = run()
    assert set(statuses(records).values()) == {"out of memory"}
    assert "nothing can be checked" in (records["original"].reason or "")


class FullPrecisionAlone(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        if image.dtype == torch.bfloat16:
            raise NotImplementedError("no such transform in 16 bits")
        restored: Tensor = self.model(image)
        return restored


def test_a_format_that_the_original_cannot_run_skips_all_cases() -> None:
    given = Networks(FullPrecisionAlone(TINY.original))
    records = run(replace(COMPARISON, precision="bf16"), build=lambda _: given)
    assert set(statuses(records).values()) == {"skipped"}
    assert "the original cannot run in bf16: NotImplementedError: no such transform" in (records["torch"].reason or "")


def test_cases_that_cannot_run_are_skipped() -> None:
    records = run(variants=("torch", "triton"))
    assert records["triton"].status == "skipped"
    assert records["triton"].check is None
    assert records["torch"].status == "timed"


def test_fused_networks_are_timed_with_their_shares_of_the_time() -> None:
    records = run(variants=("fused", "fused-original"))
    assert statuses(records) == {"original": "timed", "fused": "timed", "fused-original": "timed"}
    for variant, extra in (("fused", TINY.report.extra_parameters), ("fused-original", 0)):
        cost = records[variant].cost
        assert cost is not None
        assert cost.extra_parameters == extra
        assert cost.share_in_blocks is not None
        assert 0 < (cost.share_fused or 0) < cost.share_in_blocks < 1


@pytest.mark.parametrize("variant", ["fused", "fused-original"])
def test_a_wrong_fused_block_is_not_timed(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    monkeypatch.setattr(FusedBlock, "forward", lambda self, x: 1.01 * x)
    assert statuses(run(variants=(variant,))) == {"original": "timed", variant: "wrong"}


def test_a_patched_network_is_timed_as_the_original_and_fused() -> None:
    records = run(variants=("torch", "fused-original"), build=lambda _: Networks(copy.deepcopy(TINY.of("torch"))))
    assert statuses(records) == {"original": "timed", "torch": "skipped", "fused-original": "timed"}
    assert records["torch"].reason == ("torch: the network is patched already; fused-original runs it fused")


def test_a_patched_network_computed_wrongly_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched while attentions compute rightly: otherwise they would not be recognised.
    patched = TINY.of("torch")
    monkeypatch.setitem(ops.mdta.functions, "auto", Altered(lambda out, terms: 1.01 * out))
    records = run(variants=(), build=lambda _: Networks(copy.deepcopy(patched)))
    assert statuses(records) == {"original": "wrong"}


def test_a_network_without_blocks_to_fuse() -> None:
    plain = Networks(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))
    records = run(variants=("fused", "fused-original"), build=lambda _: plain)
    assert statuses(records) == {"original": "timed", "fused": "skipped", "fused-original": "skipped"}
    assert "no transformer block around a known attention" in (records["fused-original"].reason or "")
    assert records["original"].cost is not None
    assert records["original"].cost.share_in_blocks is None
    assert records["original"].cost.floor_seconds is None


class Grey(torch.nn.Module):
    """A network of one channel whose forward pass raises while ``refusing()``, such as under a compiler."""

    def __init__(self, refusing: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.body, self.refusing = torch.nn.Conv2d(1, 1, 3, padding=1), refusing

    def forward(self, image: Tensor) -> Tensor:
        if self.refusing():
            raise TypeError("nothing for others")
        restored: Tensor = self.body(image)
        return restored


def in_modes(networks: Networks, *modes: str, **options: Any) -> dict[str, Record]:
    harness = Harness(CPU, Effort(2, 0, 60, fewest=1), ORIGIN, lambda _: networks, **options)
    return {each.case.mode: each for each in harness.run(COMPARISON, cases_of(COMPARISON, [], modes))}


def test_onnxruntime_is_checked_and_timed() -> None:
    records = in_modes(Networks(Grey(), channels=1), "eager", "onnxruntime")
    assert {mode: record.status for mode, record in records.items()} == {"eager": "timed", "onnxruntime": "timed"}
    assert records["onnxruntime"].ratio == 1
    assert records["onnxruntime"].ratio_to_eager is not None
    assert records["onnxruntime"].peak_bytes is None
    assert records["onnxruntime"].check is not None
    assert 0 < records["onnxruntime"].check.error <= records["onnxruntime"].check.allowed


def test_openvino_is_checked_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = openvino_stub.install(monkeypatch)
    records = in_modes(Networks(Grey(), channels=1), "eager", "openvino")
    assert {mode: record.status for mode, record in records.items()} == {"eager": "timed", "openvino": "timed"}
    assert records["openvino"].ratio_to_eager is not None
    assert records["openvino"].check is not None
    assert 0 < records["openvino"].check.error <= records["openvino"].check.allowed
    assert {(device, each["INFERENCE_PRECISION_HINT"], each["INFERENCE_NUM_THREADS"]) for device, each in asked} == {
        ("CPU", "f32", torch.get_num_threads())
    }


def test_a_network_that_openvino_refuses_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_stub.install(monkeypatch)
    monkeypatch.setattr(openvino_stub.Core, "create_infer_request", lambda self: 1 / 0)
    record = in_modes(Networks(Grey(), channels=1), "eager", "openvino")["openvino"]
    assert record.status == "skipped"
    assert "OpenVINO cannot run this network: ZeroDivisionError" in (record.reason or "")


def test_onnxruntime_has_a_larger_allowed_error() -> None:
    checker = Checker(TINY, Bench.of(CPU, "forward", 1, 16, 24), patched=False)
    own = checker.own(FLOAT32).relative
    # Multiples of the original's own error: 2 are allowed, 20 for onnxruntime.
    for error, modes in ((1.5, {"eager", "onnxruntime"}), (10, {"onnxruntime"}), (30, set())):
        found = {"output": checker.original.signals["output"] * (1 + error * own)}
        checks = {mode: checker.check_case("original", mode, FLOAT32, found) for mode in ("eager", "onnxruntime")}
        assert {mode for mode, check in checks.items() if not check.problem} == modes


def test_modes_that_refuse_a_network_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(model: torch.nn.Module, **options: Any) -> Callable[[Tensor], Tensor]:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", compile)
    # PyTorch 2.6 falls back on tracing where torch.export refuses a network.
    refusing = Grey(lambda: torch.compiler.is_compiling() or torch.jit.is_tracing())
    records = in_modes(Networks(refusing, channels=1), "eager", "onnxruntime", "compiled")
    assert {mode: record.status for mode, record in records.items()} == {
        "eager": "timed",
        "onnxruntime": "skipped",
        "compiled": "skipped",
    }
    assert "onnxruntime cannot run this network" in (records["onnxruntime"].reason or "")
    assert records["compiled"].reason == "RuntimeError: no C++ compiler"


def test_cases_without_time_are_left() -> None:
    records = in_modes(Networks(Grey(), channels=1), "eager", "compiled", budget=Budget(0))
    assert records["eager"].status == "timed"
    # The fewest turns are taken whatever the time.
    assert len(records["eager"].seconds) == 1
    assert records["compiled"].status == "left"
    assert "more than is left" in (records["compiled"].reason or "")


def test_number_formats_share_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[Precision] = []
    reference = Checker._reference
    monkeypatch.setattr(
        Checker, "_reference", lambda self, model, format_: computed.append(format_) or reference(self, model, format_)
    )
    harness = Harness(CPU, Effort(1, 0, 60), ORIGIN, lambda _: TINY)
    for comparison in (COMPARISON, replace(COMPARISON, precision="bf16"), replace(COMPARISON, height=8)):
        list(harness.run(comparison, cases_of(comparison, [], ["eager"])))
    assert computed == [FLOAT64, FLOAT64]


def test_tf32_settings_are_restored() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with PRECISIONS["tf32"].settings():
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        with FLOAT64.settings():
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
