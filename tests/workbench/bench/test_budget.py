"""Budgets of time: what is left, and estimates of what a case takes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.workbench.bench.stubs import COMPARISON, CPU

from exda_primitives.workbench.bench import budget
from exda_primitives.workbench.bench.budget import Budget, seconds_of_a_pass
from exda_primitives.workbench.bench.harness import Effort
from exda_primitives.workbench.bench.networks import Networks


def test_left_is_the_budget_without_the_time_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter((100.0, 130.0, 170.0))
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(now))
    given = Budget(60)
    assert given.left() == 30
    assert given.left() == -10


def test_a_budget_without_an_end() -> None:
    assert Budget().left() == float("inf")


def test_estimates_come_from_the_nearest_finished_work() -> None:
    given = Budget(60)
    assert given.estimate(100) is None
    given.spent(100, 7.0)
    given.spent(1000, 20.0)
    assert given.estimate(4000) == 80
    assert given.estimate(150) == 10.5
    # Smaller work has the same fixed costs: its estimate does not shrink.
    assert given.estimate(1) == 7
    assert given.estimate(900) == 20


@pytest.mark.parametrize(("seconds_a_pixel", "sides"), [(1e-9, [24, 40, 80, 160]), (1e-4, [24, 40, 80])])
def test_the_time_of_a_pass_is_estimated_from_smaller_passes(
    monkeypatch: pytest.MonkeyPatch, seconds_a_pixel: float, sides: list[int]
) -> None:
    seen: list[int] = []

    def clock(device: object) -> Callable[[object], float]:
        def measure(step: object) -> float:
            seen.append(step.step.image.shape[-1])  # type: ignore[attr-defined]
            return seconds_a_pixel * seen[-1] ** 2

        return measure

    monkeypatch.setattr(budget, "clock", clock)
    networks = Networks.build("restormer-tiny")
    comparison = replace(COMPARISON, height=160, width=160)
    found = seconds_of_a_pass(networks, comparison, CPU, 8)
    assert found == pytest.approx(seconds_a_pixel * 160**2)
    assert seen == [side for side in sides for _ in range(3)]


def test_the_least_time_of_a_comparison() -> None:
    assert Effort(20, 1, 60, fewest=1).least(2.0) == 2 * (10 + 2 * 2)
