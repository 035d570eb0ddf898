"""Reports on configurations, with kernels tuned under Triton's interpreter as they are on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from benchmarks.gpu.rows import FILE, Row, Rows, read
from benchmarks.gpu.traffic import passes, shortened
from tests.benchmarks.gpu.conftest import Ran
from tests.benchmarks.gpu.small import Cpu, compute_nothing

from benchmarks.gpu import kernels, tuning
from exda_primitives.ops.triton.gram import gram
from exda_primitives.ops.triton.kernel import Kernel

CONFIGS = [triton.Config({"BLOCK_N": 16}), triton.Config({"BLOCK_N": 32})]


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Tunes all kernels, of which the interpreter would take the first configuration; every time is 2 ms."""
    monkeypatch.setenv("EXDA_CACHE", str(tmp_path / "choices"))
    for kernel in kernels.all_of_them():
        monkeypatch.setattr(kernel, "tunes", len(kernel.configs) > 1)
        monkeypatch.setattr(kernel, "do_bench", _timed)
        monkeypatch.setattr(kernel, "configs", CONFIGS if kernel.__name__ == "_gram_kernel" else kernel.configs)
        kernel.forget()
    yield
    for kernel in kernels.all_of_them():
        kernel.forget()


def _timed(call: Any, quantiles: tuple[float, ...]) -> list[float]:
    call()
    return [2.0] * len(quantiles)


def product(dtype: torch.dtype = torch.float32) -> Any:
    x = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    return gram(x, x, None, 2)


def rows_of(folder: Path) -> list[Row]:
    return read(folder / FILE)


@pytest.mark.usefixtures("tuned")
def test_a_choice_is_reported_once(tmp_path: Path) -> None:
    with tuning.reported(Rows(tmp_path, "a stage")):
        product()
        product()
    (row,) = rows_of(tmp_path)
    assert (row["kind"], row["kernel"], row["ms"]) == ("tuned", "_gram_kernel", 2.0)
    assert "C=2 K=0" in row["key"]
    assert len(row["ms_of_all"]) == 2
    # float32: x, which is both q and k, and the sums of two heads; in 2 ms.
    moved = 4 * (4 * 24 + 2 * 4 * 2)
    assert row["terabytes_per_second"] == pytest.approx(moved / 2e-3 / 1e12)


@pytest.mark.usefixtures("tuned")
def test_configurations_that_agree_give_no_row(tmp_path: Path) -> None:
    agreement = tuning.Agreement(Rows(tmp_path, "a stage"))
    with agreement.checked():
        first = product()
        second = product()
        product(torch.float16)
    assert (agreement.compared, agreement.disagreeing, rows_of(tmp_path)) == (4, 0, [])
    # The outputs, poisoned for each comparison, hold in the end what the chosen configuration wrote.
    assert torch.equal(first, second)
    assert first.isfinite().all()


@pytest.mark.usefixtures("tuned")
def test_unwritten_outputs_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_nothing(monkeypatch)
    agreement = tuning.Agreement(Rows(tmp_path, "a stage"))
    with agreement.checked():
        product()
    assert (agreement.compared, agreement.disagreeing) == (2, 2)
    first, _ = rows_of(tmp_path)
    assert (first["kind"], first["kernel"]) == ("disagrees", "_gram_kernel")
    assert first["unwritten"] == {"partial": 2 * 4 * 2}


@pytest.mark.usefixtures("tuned")
def test_a_configuration_that_does_not_fit_is_no_disagreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agreement = tuning.Agreement(Rows(tmp_path, "a stage"))
    start = Kernel.start

    def refuse(kernel: Kernel, config: triton.Config, *others: Any) -> Any:
        if config.kwargs["BLOCK_N"] == 32:
            raise triton.runtime.errors.OutOfResources(2, 1, "shared memory")
        return start(kernel, config, *others)

    monkeypatch.setattr(Kernel, "start", refuse)
    with agreement.checked():
        product()
    assert [row["kind"] for row in rows_of(tmp_path)] == ["does not fit"]
    assert agreement.disagreeing == 0


@pytest.mark.usefixtures("tuned", "nothing_is_computed")
def test_a_stage_compares_the_configurations_of_all_kernels(ran: Ran) -> None:
    *rows, total = ran("correct --precisions fp16 --cases L1-odd --configurations")
    kernels_of_a_block = {
        "depthwise_kernel",
        "_gram_kernel",
        "mix_kernel",
        "norm_pointwise_kernel",
        "gated_product_kernel",
    }
    assert {row["kernel"] for row in rows if row["kind"] == "disagrees"} == kernels_of_a_block
    assert total["disagreeing"] == total["configurations"] > 10


@pytest.mark.usefixtures("tuned", "nothing_is_computed")
def test_a_stage_reports_the_chosen_configurations(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.testing.do_bench", lambda call, warmup, rep, quantiles: [0.5] * len(quantiles))
    rows = ran("ratio --size 8x16 --precision float32 --variants fused --turns 1 --seconds 0 --no-reference")
    tuned = [row for row in rows if row["kind"] == "tuned"]
    # The depthwise kernel, made small, has a single configuration.
    assert {row["kernel"] for row in tuned} == {"_gram_kernel", "mix_kernel"}
    assert all(row["ms"] == 0.5 for row in tuned)


@pytest.mark.usefixtures("tuned")
def test_tuning_can_go_without_times_or_configurations() -> None:
    calls: list[None] = []
    tuning.untimed()
    kernel = next(each for each in kernels.tuned() if each.__name__ == "_gram_kernel")
    assert kernel.do_bench(lambda: calls.append(None), (0.5, 0.2)) == [1.0, 1.0]
    assert len(calls) == 1
    tuning.first_configuration()
    assert all(len(each.configs) == 1 for each in kernels.tuned())


def test_every_tuned_kernel_has_a_known_output() -> None:
    found = {
        kernel.__name__: set(kernel.arg_names) & tuning.OUTPUTS
        for kernel in kernels.all_of_them()
        if len(kernel.configs) > 1
    }
    assert len(found) >= 9
    assert all(found.values()), found


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.5, 0.0], [0.0, 0.0], 0.5),
        ([], [], 0.0),
    ],
)
def test_difference(found: list[float], expected: list[float], apart: float) -> None:
    assert tuning.difference(torch.tensor(found), torch.tensor(expected)) == apart


def test_two_roundings_are_allowed_and_nan_is_not() -> None:
    one = torch.ones(1, dtype=torch.bfloat16)
    assert tuning.difference(torch.nextafter(one, 2 * one), one) < tuning.tolerance(one)
    assert not tuning.difference(one * float("nan"), one) <= tuning.tolerance(one)


def test_passes() -> None:
    def forward() -> torch.Tensor:
        product()
        return product()

    (only,) = passes(Cpu(), forward)
    assert (only.kernel, only.launches) == ("_gram_kernel", 2)
    assert only.megabytes == 2 * 4 * (4 * 24 + 2 * 4 * 2) / 1e6
    assert only.terabytes_per_second == pytest.approx(only.megabytes / only.ms / 1e3)
    (first, *_, last) = shortened([only] * 27)
    assert (first, last.kernel, last.launches) == (only, "all others", 4)
