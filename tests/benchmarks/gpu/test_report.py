"""Tables of made-up rows."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.gpu.report import markdown
from benchmarks.gpu.rows import Row

WHERE = {"size": "1024", "precision": "bf16"}
MACHINE = {"cpu": "a processor", "cores": 16, "threads": 16, "python": "3.12", "torch": "2.11", "commit": "abc"}


def row(kind: str, stage: str = "ratio-1024", **data: Any) -> Row:
    return {"stage": stage, "kind": kind, **data, "at": 1.0}


def time(variant: str, mode: str, ms: float, ratio: float, stage: str = "ratio-1024") -> Row:
    data = {"p20_ms": ms - 1, "p50_ms": ms, "p80_ms": ms + 1, "ratio_to_eager": ratio, "ratio_to_captured": None}
    return row("time", stage, variant=variant, mode=mode, **WHERE, **data)


def lines(*rows: Row) -> list[str]:
    return markdown(rows).splitlines()


def test_a_report_without_rows_is_its_title() -> None:
    assert lines() == ["# The kernels on a GPU"]


def test_machine_and_ceilings() -> None:
    ceilings = {"copy_terabytes_per_second": 3.02, "product_teraflops": 777.4, "microseconds_of_an_addition": 3.21}
    found = lines(row("machine", "about", **MACHINE, fingerprint="0123"), row("ceilings", "about", **ceilings))
    assert found[2] == "## Machine"
    assert "commit abc. Fingerprint of the code: 0123." in found[4]
    assert "A copy: 3.02 TB/s; a product in bfloat16: 777 TFLOP/s; PyTorch starts a kernel in 3.2 us." in found


def test_stages_and_errors() -> None:
    found = lines(
        row("stage", fate="done", process_seconds=12.4),
        row("error", variant="fused", **WHERE, error="OutOfMemoryError: no", trace="..."),
        row("stage", "host", fate="skipped", seconds_left=3.0),
        row("stage", "fp16", fate="timed out", process_seconds=60.0, exit_status=[-9], said="a\nb\nc"),
        {"stage": "", "kind": "unreadable", "line": '{"sta'},
    )
    assert "| ratio-1024 | done | 12 | 1 |" in found
    assert "| host | skipped | - | - |" in found
    assert "| fp16 | timed out | 60 | - |" in found
    assert "- ratio-1024, error (fused, bf16, 1024): OutOfMemoryError: no" in found
    assert "- fp16, exit status -9: b / c" in found
    assert '- ?, unreadable: {"sta' in found


def test_blocks() -> None:
    block = {
        "case": "L1",
        "precision": "bf16",
        "shape": [1, 48, 64, 1024],
        "error": 0.003,
        "channels_last": 0.003,
        "own_error": 0.0029,
        "same_bits_again": True,
        "not_on_kernels": [],
    }
    found = lines(
        row("block", "right", ok=True, **block),
        row("block", "right", ok=False, **block | {"error": math.nan, "same_bits_again": False}),
        row("block", "right", ok=False, **block | {"not_on_kernels": ["a step: modules, because of x"]}),
        row("correctness", "configurations", configurations=40, disagreeing=1),
        row(
            "disagrees", "configurations", kernel="k", config="BLOCK: 64", chosen="BLOCK: 32", differences={"out": 0.5}
        ),
    )
    assert "| L1 | bf16 | 1 x 48 x 64 x 1024 | 0.003 | 0.003 | 0.0029 | yes | right |" in found
    assert "| L1 | bf16 | 1 x 48 x 64 x 1024 | nan | 0.003 | 0.0029 | no | wrong |" in found
    assert any(line.endswith("| wrong: a step: modules, because of x |") for line in found)
    assert any(line.startswith("40 configurations wrote to poisoned outputs; 1 of them disagree") for line in found)
    assert "- k, BLOCK: 64, against BLOCK: 32: out by 0.5" in found


def test_times() -> None:
    found = lines(
        time("original", "eager", 225, 1.0),
        time("fused", "eager", 140, 0.62),
        time("fused", "eager", 120, 0.53),
        time("fused", "captured", 70, 0.31),
        time("torch", "eager", 100, 0.44),
        row("prepared", variant="fused", **WHERE, peak_bytes=3 * 2**30),
        row("captured", variant="fused", **WHERE, differences=[0.0, 0.002]),
        row("accuracy", variant="original", **WHERE, error=0.003),
        row("accuracy", variant="fused", **WHERE, error=0.0031),
    )
    assert "ratio-1024, 1024, bf16:" in found
    # Timed twice, the last one counts.
    assert "| fused | eager | 120.0 (119.0 to 121.0) | 0.53 | - | 3.00 | 0.0031 |" in found
    assert "| fused | captured, 0.002 from eager | 70.0 (69.0 to 71.0) | 0.31 | - | - | 0.0031 |" in found
    assert "| torch | eager | 100.0 (99.0 to 101.0) | 0.44 | - | - | not checked |" in found
    assert "140.0" not in "".join(found)


def test_no_time_is_shown_for_wrong_results() -> None:
    for error in (0.0061, math.nan):
        found = lines(
            time("fused", "eager", 120, 0.53),
            row("accuracy", variant="original", **WHERE, error=0.003),
            row("accuracy", variant="fused", **WHERE, error=error),
        )
        assert f"| fused | eager | wrong | - | - | - | {error:.2g} |" in found
    for apart in (0.06, math.nan):
        found = lines(
            time("fused", "captured", 70, 0.3), row("captured", variant="fused", **WHERE, differences=[0.0, apart])
        )
        assert any("| wrong: the replay computes something else | - | - |" in line for line in found)


def test_another_stage_is_another_comparison() -> None:
    found = lines(time("original", "eager", 225, 1.0), time("original", "eager", 230, 1.0, stage="printed"))
    assert {"ratio-1024, 1024, bf16:", "printed, 1024, bf16:"} <= set(found)


def test_passes_host_gradients_training_and_tuning() -> None:
    known = {"kernel": "depthwise_kernel", "launches": 132, "ms": 21.5, "megabytes": 43000.0}
    other = {"kernel": "a" * 80, "launches": 4, "ms": 1.0, "megabytes": None, "terabytes_per_second": None}
    gradients = {"case": "L1", "precision": "bf16", "error": 0.01, "own_error": 0.009, "worst": {"x": [0.02, 0.01]}}
    step = {"size": "4 x 128", "precision": "bf16"}
    tuned = {"kernel": "k", "key": "C=48 2**20", "best": "BLOCK: 64", "ms": 0.5, "seconds": 1.0}
    found = lines(
        row(
            "passes",
            variant="fused",
            **WHERE,
            ms=90.0,
            launches=728,
            passes=[known | {"terabytes_per_second": 2.0}, other],
        ),
        row("host", "host", variant="fused", ms=130.2, microseconds_a_block=2958.6),
        row("gradients", "gradients", ok=True, wrong=[], **gradients),
        row("gradients", "gradients", ok=False, wrong=["x"], **gradients),
        {**time("fused", "eager", 200, 0.9), "stage": "training", **step},
        row("training", "training", variant="fused", **step, peak_bytes=2**30, gradient_error=0.02),
        row("tuned", **tuned, terabytes_per_second=2.1),
    )
    assert "ratio-1024, 1024, bf16, fused: 728 launches, 90.0 ms." in found
    assert "| depthwise_kernel | 132 | 21.500 | 43.00 | 2.00 |" in found
    assert f"| {'a' * 70} | 4 | 1.000 | - | - |" in found
    assert "| fused | 130.2 | 2959 |" in found
    assert "| L1 | bf16 | 0.01 | 0.009 | x 0.02 (0.01) | right |" in found
    assert "| L1 | bf16 | 0.01 | 0.009 | x 0.02 (0.01) | wrong: x |" in found
    assert "| fused | eager | 200.0 (199.0 to 201.0) | 0.90 | - | 1.00 | 0.02 |" in found
    assert "| ratio-1024 | k | C=48 2**20 | BLOCK: 64 | 0.500 | 2.10 | 1.0 |" in found
