"""Turns, percentiles and ratios."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workbench.bench.stubs import CPU

from exda_primitives.workbench.bench import timing
from exda_primitives.workbench.bench.timing import FEWEST_TURNS, Percentiles, clock, ratio, turns

TIMES = st.floats(1e-6, 1e3)


def test_percentiles() -> None:
    assert Percentiles.of([5.0, 1.0, 4.0, 2.0, 3.0]) == Percentiles(pytest.approx(1.8), 3.0, pytest.approx(4.2))
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0, 7.0)


@given(st.lists(TIMES, min_size=1))
def test_percentiles_are_in_order(seconds: list[float]) -> None:
    found = Percentiles.of(seconds)
    assert min(seconds) <= found.p20 <= found.p50 <= found.p80 <= max(seconds)


def test_a_ratio_is_taken_within_a_turn() -> None:
    # The machine is ten times slower in the second half: the ratio of the medians would be 10.
    assert ratio([2.0, 2.0, 20.0, 20.0, 20.0], [1.0, 1.0, 10.0, 10.0, 10.0]) == 2.0
    assert ratio([1.0], None) is None


@given(st.lists(TIMES, min_size=1), st.floats(0.1, 10))
def test_ratios_do_not_depend_on_how_fast_the_machine_is(seconds: list[float], factor: float) -> None:
    assert ratio([factor * each for each in seconds], seconds) == pytest.approx(factor)


def test_the_cpu_clock_measures_a_call() -> None:
    calls: list[int] = []
    assert clock(CPU)(lambda: calls.append(1)) > 0
    assert calls == [1]


class Steps:
    """Steps that record their turns; the one named ``failing`` raises at its third call."""

    def __init__(self, *names: str, failing: str = "") -> None:
        self.calls: list[str] = []
        self.failing = failing
        self.steps = {name: self._step(name) for name in names}

    def _step(self, name: str) -> Callable[[], None]:
        def step() -> None:
            self.calls.append(name)
            if name == self.failing and self.calls.count(name) == 3:
                raise RuntimeError("tired")

        return step


def unit_clock(step: Callable[[], object]) -> float:
    step()
    return 1.0


def test_steps_take_turns_and_come_first_equally_often() -> None:
    steps = Steps("a", "b")
    found = list(turns(steps.steps, unit_clock, 4, 2, 60, pytest.fail))
    assert found == [{"a": 1.0, "b": 1.0}] * 4
    assert "".join(steps.calls) == "abba" * 3


def test_no_turn_is_begun_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(now))
    assert len(list(turns(Steps("a").steps, unit_clock, 50, 0, 0, pytest.fail))) == FEWEST_TURNS


def test_a_step_that_raises_takes_no_further_turns() -> None:
    steps, failures = Steps("a", "b", failing="a"), {}
    found = list(turns(steps.steps, unit_clock, 4, 0, 60, failures.__setitem__))
    assert [sorted(turn) for turn in found] == [["a", "b"], ["a", "b"], ["b"], ["b"]]
    assert list(steps.steps) == ["b"]
    assert str(failures["a"]) == "tired"
