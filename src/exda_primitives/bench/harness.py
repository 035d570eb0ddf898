"""Runs comparisons: builds, checks, measures memory, times in turns, and hands out a record a case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import ExDAError
from .cases import CAPTURED, COMPILED, EAGER, FORWARD, ORIGINAL, Case, Comparison, why_not
from .check import Check, Judge
from .floor import floor_bytes
from .memory import Peak, out_of_memory, tidy
from .networks import Networks
from .precision import PRECISIONS, Precision
from .record import ERROR, OUT_OF_MEMORY, SKIPPED, TIMED, WRONG, Cost, Origin, Record
from .steps import Bench, Captured, Step
from .timing import clock, ratio, turns

_LENGTH = 300
"""Characters of an error that a record holds."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        turns: of a comparison.
        warm_up: turns before.
        limit: seconds after which no further turn is begun.
    """

    turns: int
    warm_up: int
    limit: float


@dataclass(frozen=True)
class _Ready:
    """What is known of a case that may be timed."""

    check: Check
    peak: int | None


class Harness:
    """Runs one comparison after the other on a device.

    Args:
        device: where.
        effort: how long.
        origin: what is written into every record.
        build: makes the networks of a backbone.
    """

    def __init__(
        self,
        device: torch.device,
        effort: Effort,
        origin: Origin,
        build: Callable[[str], Networks] = Networks.build,
    ) -> None:
        self.device, self.effort, self.origin, self._build = device, effort, origin, build
        self._networks: tuple[str, Networks] | None = None
        self._judge: tuple[Comparison, Judge] | None = None

    def run(
        self, comparison: Comparison, cases: Sequence[Case], progress: Callable[[float], None] = lambda _: None
    ) -> Iterator[Record]:
        """A record a case, in the order in which their fates are known; none is left out.

        Args:
            comparison: what all cases have in common.
            cases: of it.
            progress: told what share of the comparison is done.
        """
        runnable = []
        for case in cases:
            if reason := why_not(case, self.device):
                yield Record(case, SKIPPED, self.origin, reason)
            else:
                runnable.append(case)
        if not runnable:
            return
        precision = PRECISIONS[comparison.precision]
        judge = self._judge_of(comparison, precision)
        if isinstance(judge, _Failure):
            self._judge = None
            yield from (Record(case, judge.status, self.origin, judge.reason) for case in runnable)
        else:
            with precision.settings():
                yield from self._compare(judge, precision, runnable, progress)
            # Each shape would count towards the number of recompilations after which PyTorch gives up.
            torch.compiler.reset()
        tidy(self.device)

    def _judge_of(self, comparison: Comparison, precision: Precision) -> Judge | _Failure:
        # The number formats of one shape and task follow each other: they share their references.
        key = replace(comparison, precision="")
        try:
            if self._judge is None or self._judge[0] != key:
                self._judge = None
                if self._networks is None or self._networks[0] != comparison.backbone:
                    self._networks = comparison.backbone, self._build(comparison.backbone)
                shape = (comparison.batch, comparison.height, comparison.width)
                self._judge = key, Judge(self._networks[1], Bench.of(self.device, comparison.task, *shape))
        except Exception as error:
            return _Failure.of(error, "no reference, so that nothing can be checked: ")
        judge = self._judge[1]
        try:
            own = judge.own(precision).relative
        except Exception as error:
            failure = _Failure.of(error, f"the original cannot run in {precision.name}: ")
            # A network that does not know a number format is no fault of what is measured here.
            return replace(failure, status=SKIPPED) if failure.status == ERROR else failure
        if not own < math.inf:
            return _Failure(SKIPPED, f"the original gives no finite numbers in {precision.name}")
        return judge

    def _compare(
        self, judge: Judge, precision: Precision, cases: Sequence[Case], progress: Callable[[float], None]
    ) -> Iterator[Record]:
        costs = {patched: self._cost(cases[0].comparison, judge.networks, patched) for patched in (False, True)}

        def record(case: Case, status: str, **found: Any) -> Record:
            return Record(case, status, self.origin, cost=costs[case.variant != ORIGINAL], **found)

        parts = len(cases) + self.effort.turns
        pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        steps: dict[Case, Step] = {}
        ready: dict[Case, _Ready] = {}
        failures: dict[Case, _Failure] = {}
        for done, case in enumerate(cases):
            progress(done / parts)
            try:
                step, found = self._prepare(case, judge, precision, pool)
            except Exception as error:
                failures[case] = _Failure.of(error)
                tidy(self.device)
                continue
            if found.check.problem is not None:
                yield record(case, WRONG, reason=found.check.problem, check=found.check)
            else:
                steps[case], ready[case] = step, found
            del step

        def failed(case: Case, error: Exception) -> None:
            failures[case] = _Failure.of(error)
            tidy(self.device)

        timed = []
        effort = self.effort
        for turn in turns(steps, clock(self.device), effort.turns, effort.warm_up, effort.limit, failed):
            timed.append(turn)
            progress((len(cases) + len(timed)) / parts)
        seconds = {case: tuple(turn[case] for turn in timed) for case in steps}
        for case, times in seconds.items():
            yield record(
                case,
                TIMED,
                check=ready[case].check,
                seconds=times,
                ratio=ratio(times, seconds.get(replace(case, variant=ORIGINAL))),
                ratio_to_eager=ratio(times, seconds.get(replace(case, variant=ORIGINAL, mode=EAGER))),
                peak_bytes=ready[case].peak,
            )
        yield from (record(case, failure.status, reason=failure.reason) for case, failure in failures.items())

    def _prepare(self, case: Case, judge: Judge, precision: Precision, pool: Any) -> tuple[Step, _Ready]:
        model = judge.networks.original if case.variant == ORIGINAL else judge.networks.trained
        placed = judge.bench.place(model, case.variant, precision)
        step: Step = judge.bench.step(placed, case.variant, precision, compiled=case.mode == COMPILED)
        peak = Peak(self.device, (*placed.parameters(), *placed.buffers()))
        most: int | None = None
        if case.mode == CAPTURED:
            step = Captured(step, pool)
            most = peak.so_far()
        # Before any training step changes the weights.
        check = judge.judge(case.variant, precision, step.signals())
        # On the CPU the operations of compiled code cannot be watched.
        if case.mode == EAGER or (case.mode == COMPILED and self.device.type == "cuda"):
            most = peak.of(step)
        return step, _Ready(check, most)

    def _cost(self, comparison: Comparison, networks: Networks, patched: bool) -> Cost:
        least = floor_bytes(networks.report, comparison) if comparison.task == FORWARD else None
        return Cost(
            networks.parameters,
            networks.report.extra_parameters if patched else 0,
            networks.macs(comparison),
            networks.extra_macs(comparison) if patched else 0,
            None if least is None else least / self.origin.copy_bandwidth,
        )


@dataclass(frozen=True)
class _Failure:
    """What an error comes to: in words, for with the error would be kept whatever it was raised amidst."""

    status: str
    reason: str

    @classmethod
    def of(cls, error: Exception, before: str = "") -> _Failure:
        text = f"{before}{type(error).__name__}: {' '.join(str(error).split())}"
        # What the library refuses on purpose cannot run here.
        status = OUT_OF_MEMORY if out_of_memory(error) else SKIPPED if isinstance(error, ExDAError) else ERROR
        return cls(status, text if len(text) <= _LENGTH else text[:_LENGTH] + "...")
