"""Every stage, small and on the CPU: its options, what it measures and its rows."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import typer
from benchmarks.gpu.plan import CALLS
from benchmarks.gpu.rows import Row, Rows, read
from tests.benchmarks.gpu.conftest import Ran
from tests.benchmarks.gpu.small import Cpu
from torch import Tensor

from benchmarks.gpu import blocks, stage
from exda_primitives import cli
from exda_primitives.models import Restormer
from exda_primitives.models.blocks import TransformerBlock
from exda_primitives.ops import triton_or_torch
from exda_primitives.ops.reference.step import gated
from exda_primitives.ops.reference.step import norm as normalised
from exda_primitives.ops.terms import NormTerms, PackedQKVTerms
from exda_primitives.ops.torch import mdta

PAIR = "--turns 1 --seconds 0 --precision float32 --size 8x16"


def kinds(rows: list[Row]) -> list[str]:
    return [row["kind"] for row in rows]


def of_kind(rows: list[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def test_about(ran: Ran) -> None:
    machine, ceilings = ran("about")
    assert machine["torch"] == torch.__version__
    assert len(machine["fingerprint"]) == 16
    assert min(ceilings[name] for name in ceilings if name not in ("stage", "kind", "at")) > 0


def test_blocks_are_right(ran: Ran) -> None:
    # Half precision is fp16, because the interpreter does not round to bfloat16.
    odd, total = ran("correct --precisions fp16 --cases L1-odd")
    assert (odd["ok"], odd["same_bits_again"], odd["not_on_kernels"]) == (True, True, [])
    assert 0 < odd["own_error"] < 0.01
    assert (total["right"], total["not_right"], total["asked"]) == (1, 0, 1)


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_wrong_kernel_is_not_right(ran: Ran, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    monkeypatch.setattr(triton_or_torch, "attention_step", lambda x, norm, terms, like: x * factor)
    monkeypatch.setattr(triton_or_torch, "gated_step", lambda x, norm, terms, like: x)
    first, second, total = ran("correct --precisions float32")
    assert (first["ok"], second["ok"]) == (False, False)
    assert (total["right"], total["not_right"]) == (0, 2)


def test_a_block_that_does_not_run_on_kernels_is_not_right(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_or_torch, "step_unsupported_reason", lambda *_: "a reason")
    row, _ = ran("correct --precisions float32 --cases L1-odd")
    assert row["error"] < 1e-6
    assert not row["ok"]
    # Both steps for this reason, and the attention, which then does not run on kernels either.
    assert ["a reason" in each for each in row["not_on_kernels"]] == [True, True, False]


def test_gradients(ran: Ran) -> None:
    (row,) = ran("gradients --precisions float32")
    assert row["ok"]
    assert 0 < row["error"] < 1e-6
    assert len(row["worst"]) == 5


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_small_wrong_gradient_is_found_beside_large_ones(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def step(x: Tensor, norm: NormTerms, terms: PackedQKVTerms, _: Tensor | None) -> Tensor:
        def altered(gradient: Tensor) -> Tensor:
            return gradient * factor

        terms.temperature.register_hook(altered)
        return x + mdta(normalised(x, norm), terms)

    monkeypatch.setattr(triton_or_torch, "attention_step", step)
    monkeypatch.setattr(
        triton_or_torch, "gated_step", lambda x, norm, terms, like: x + gated(normalised(x, norm), terms)
    )
    (row,) = ran("gradients --precisions float32")
    assert (row["ok"], row["wrong"]) == (False, ["0.attn.temperature"])
    assert next(iter(row["worst"])) == "0.attn.temperature"


def test_a_missing_gradient_gives_an_error_row(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_or_torch, "attention_step", lambda x, norm, terms, like: x)
    monkeypatch.setattr(triton_or_torch, "gated_step", lambda x, norm, terms, like: x)
    # The output does not depend on the parameters: PyTorch raises an error, which becomes a row.
    assert kinds(ran("gradients --precisions float32")) == ["error"]


@pytest.mark.usefixtures("nothing_is_computed")
def test_ratio(ran: Ran) -> None:
    rows = ran(f"ratio --variants original torch fused {PAIR} --profile")
    assert {row["variant"] for row in of_kind(rows, "prepared")} == {"original", "torch", "fused"}
    assert {(row["variant"], row["mode"]) for row in of_kind(rows, "time")} == {
        (variant, mode) for variant in ("original", "torch", "fused") for mode in ("eager", "captured")
    }
    captured = {row["variant"]: row for row in of_kind(rows, "captured")}
    assert captured["original"]["same_bits"] == captured["torch"]["same_bits"] == [True, True]
    accuracy = {row["variant"]: row["error"] for row in of_kind(rows, "accuracy")}
    assert 0 < accuracy["original"] < 1e-6
    assert 0 < accuracy["torch"] < 1e-6
    fused, original = of_kind(rows, "passes")
    assert (fused["variant"], original["variant"], original["passes"]) == ("fused", "original", [])
    passes = {each["kernel"]: each for each in fused["passes"]}
    # Three launches in each of the two blocks: for q, k and v, for the value, for the gate.
    assert passes["depthwise_kernel"]["launches"] == 6
    assert passes["depthwise_kernel"]["megabytes"] > 0
    assert all(row["peak_bytes"] > 0 for row in of_kind(rows, "prepared"))
    assert "error" not in kinds(rows)


def test_a_second_stage_reuses_networks_and_references(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    ran("networks")
    first = ran(f"ratio --variants original {PAIR}")
    # Making either again would fail.
    monkeypatch.setattr("benchmarks.gpu.networks.Networks", None)
    monkeypatch.setattr("exda_primitives.workbench.bench.steps.Bench.signals", None)
    second = ran(f"ratio --variants original {PAIR}")
    assert [row["error"] for row in of_kind(first, "accuracy")] == [row["error"] for row in of_kind(second, "accuracy")]


def test_a_variant_that_fails_stops_no_other(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(triton_or_torch, "attention_step", fail)
    rows = ran(f"ratio --variants fused original {PAIR} --no-reference")
    (error,) = of_kind(rows, "error")
    assert (error["variant"], error["error"]) == ("fused", "OutOfMemoryError: CUDA out of memory")
    assert [row["variant"] for row in of_kind(rows, "time")] == ["original"] * 2


def test_a_lost_gpu_ends_the_stage(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(triton_or_torch, "attention_step", fail)
    assert kinds(ran("correct --precisions float32")) == ["error", "error", "correctness"]
    monkeypatch.setattr(Cpu, "wait", fail)
    assert kinds(ran("correct --precisions float32", status=1)) == ["error", "failed"]


def test_a_stage_without_a_gpu_says_so(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for process in (
        "about",
        "correct --precisions bf16",
        "gradients --precisions bf16",
        f"ratio --variants torch {PAIR}",
    ):
        (row,) = ran(process, status=1)
        assert "finds no CUDA device" in row["error"]


@pytest.mark.usefixtures("nothing_is_computed")
def test_host(ran: Ran) -> None:
    addition, *rows = ran("host")
    assert addition["microseconds"] > 0
    assert [row["variant"] for row in rows] == ["original", "fused", "fused-unpatched"]
    # The network has two blocks.
    assert all(row["microseconds_a_block"] == pytest.approx(500 * row["ms"]) for row in rows)


@pytest.mark.usefixtures("nothing_is_computed")
def test_training(ran: Ran) -> None:
    rows = ran("training --precision float32 --turns 1 --seconds 0")
    found = {row["variant"]: row for row in of_kind(rows, "training")}
    assert found.keys() == {"original", "fused", "torch"}
    assert 0 < found["original"]["gradient_error"] < 1e-5
    assert 0 < found["torch"]["gradient_error"] < 1e-5
    assert [row["variant"] for row in of_kind(rows, "time")] == ["original", "fused", "original", "fused", "torch"]


def test_the_harness_takes_its_command(ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list[list[str]] = []
    bench = typer.main.get_command(cli.app).commands["bench"].commands["run"]  # type: ignore[attr-defined]
    monkeypatch.setattr(cli, "app", lambda arguments, standalone_mode: called.append(arguments))
    assert kinds(ran("harness")) == ["harness"]
    (arguments,) = called
    assert arguments[:2] == ["bench", "run"]
    context = bench.make_context("run", arguments[2:])
    assert (context.params["out"], context.params["backbone"]) == (tmp_path / "bench", ["restormer"])
    assert context.params["minutes"] >= 0.1


def test_nothing_new_is_begun_when_time_is_up(ran: Ran, tmp_path: Path) -> None:
    run = stage.Run(Rows(tmp_path, "late"), tmp_path, end=0.0)
    for process in (
        "correct --precisions float32",
        "gradients --precisions float32",
        f"ratio --variants original fused {PAIR} --profile",
        "host",
        "training",
    ):
        module, options = stage.parsed(process.split())
        module.run(run, options)
    assert kinds(read(run.rows.path)) == ["correctness", "addition"]


def test_a_stage_that_hangs_ends_itself(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda after, exit, file: calls.extend((after, exit)))
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", lambda: calls.append("cancelled"))
    ran(f"networks --end {time.monotonic() + 50}")
    assert calls == [pytest.approx(49, abs=1), True, "cancelled"]


@pytest.mark.parametrize("call", CALLS)
def test_all_processes_of_a_call_can_be_parsed(call: str) -> None:
    names = [each.name for each in CALLS[call]]
    assert len(set(names)) == len(names)
    cases = {block.name for block in blocks.strips()}
    for each in CALLS[call]:
        assert 0 < each.least < each.most
        for process in each.processes:
            module, options = stage.parsed(process.split())
            assert cases.issuperset(getattr(options, "cases", None) or ())
            assert all(recording.block.name in {*cases, "L1", "L4"} for recording in module.recordings(options))


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(SystemExit, match="'corect' is no stage; there are about, compile, correct"):
        stage.parsed(["corect"])


def test_levels_match_the_blocks_of_restormer() -> None:
    with torch.device("meta"):
        network = Restormer()
    found = {
        (block.norm1.body.weight.shape[0], block.attn.num_heads, round(block.ffn.project_in.out_channels / 2))
        for block in network.modules()
        if isinstance(block, TransformerBlock)
    }
    levels = (*blocks.LEVELS, blocks.LAST)
    assert found == {(level.channels, level.heads, int(blocks._EXPANSION * level.channels)) for level in levels}
    assert [level.scale for level in levels] == [1, 2, 4, 8, 1]
