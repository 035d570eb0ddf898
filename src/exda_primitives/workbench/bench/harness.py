"""Runs comparisons: builds, checks, measures memory, times in turns, and hands out a record a case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from ...errors import ExDAError
from .budget import Budget
from .cases import CAPTURED, COMPILED, EAGER, FORWARD, FUSING, ONNX, ORIGINAL, Case, Comparison, skip_reason
from .check import Check, Judge
from .floor import floor_bytes
from .memory import Peak, out_of_memory, tidy
from .networks import Networks
from .precision import PRECISIONS, Precision
from .record import ERROR, LEFT, OUT_OF_MEMORY, SKIPPED, TIMED, WRONG, Cost, Origin, Record
from .share import Share, share
from .steps import Bench, Captured, Step
from .timing import FEWEST_TURNS, clock, ratio, turns

_LENGTH = 300
"""Characters of an error that a record holds."""

_LAYER = {ONNX: 0.05, COMPILED: 0.2}
"""Seconds that exporting and compiling take for each module with parameters of its own: 17 and 64 s of a Restormer, on
one core of a Xeon, torch 2.14."""

_CHECKING = 4
"""Passes that a case takes before its turns: a check with either new parameters, and two that are watched."""

_WORTH = 3
"""Turns that there has to be time for, or a further case is left."""

_LEAST = 10
"""Passes before the turns of the original and another: two references in float64, three times as long, and checks."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        turns: of a comparison.
        warm_up: turns before.
        limit: seconds after which no further turn is begun, but for the fewest.
        fewest: turns, however long they take.
    """

    turns: int
    warm_up: int
    limit: float
    fewest: int = FEWEST_TURNS

    def least(self, seconds: float) -> float:
        """Seconds that a comparison of the original with another takes at least, if a pass takes ``seconds``."""
        return seconds * (_LEAST + 2 * (self.warm_up + self.fewest))


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
        budget: what is not going to fit into it is left.
    """

    def __init__(
        self,
        device: torch.device,
        effort: Effort,
        origin: Origin,
        build: Callable[[str], Networks] = Networks.build,
        budget: Budget | None = None,
    ) -> None:
        self.device, self.effort, self.origin, self.budget = device, effort, origin, budget or Budget()
        self._networks = cache(build)
        self._judge: tuple[tuple[Comparison, bool], Judge] | None = None

    def run(
        self, comparison: Comparison, cases: Sequence[Case], progress: Callable[[float], None] = lambda _: None
    ) -> Iterator[Record]:
        """A record a case, in the order in which their fates are known; none is missing.

        What the budget has no time for is a record with the status ``LEFT``.

        Args:
            comparison: what all cases have in common.
            cases: of it.
            progress: told what share of the comparison is done.
        """
        runnable = []
        for case in cases:
            if reason := skip_reason(case, self.device) or self._unpatched(case):
                yield Record(case, SKIPPED, self.origin, reason)
            else:
                runnable.append(case)
        if not runnable:
            return
        precision = PRECISIONS[comparison.precision]
        judge = self._judge_of(comparison, precision, patched=any(case.patched for case in runnable))
        if isinstance(judge, _Failure):
            self._judge = None
            yield from (Record(case, judge.status, self.origin, judge.reason) for case in runnable)
        else:
            with precision.settings():
                yield from self._compare(judge, precision, runnable, progress)
            # Each shape would count towards the number of recompilations after which PyTorch gives up.
            torch.compiler.reset()
        tidy(self.device)

    def _unpatched(self, case: Case) -> str | None:
        """Why there is no patched network for a case that needs one."""
        patched = self._networks(case.comparison.backbone).patched if case.patched else None
        return f"{case.variant}: {patched}" if isinstance(patched, str) else None

    def _judge_of(self, comparison: Comparison, precision: Precision, *, patched: bool) -> Judge | _Failure:
        # The number formats of one shape and task follow each other: they share their references.
        key = replace(comparison, precision=""), patched
        try:
            if self._judge is None or self._judge[0] != key:
                self._judge = None
                networks = self._networks(comparison.backbone)
                shape = (comparison.batch, comparison.height, comparison.width, networks.channels)
                bench = Bench.of(self.device, comparison.task, *shape)
                self._judge = key, Judge(networks, bench, patched=patched)
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
        shared = self._share(judge, precision, cases)
        costs = {
            patched: self._cost(cases[0].comparison, judge.networks, shared, patched=patched)
            for patched in {case.patched for case in cases}
        }

        def record(case: Case, status: str, **found: Any) -> Record:
            return Record(case, status, self.origin, cost=costs[case.patched], **found)

        parts = len(cases) + self.effort.turns
        pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        steps: dict[Case, Step] = {}
        ready: dict[Case, _Ready] = {}
        failures: dict[Case, _Failure] = {}
        a_pass = 0.0
        for done, case in enumerate(cases):
            progress(done / parts)
            need = self._need(case, judge.networks, a_pass, len(steps) + 1)
            if steps and need > self.budget.left():
                yield Record(case, LEFT, self.origin, f"{case.mode}: about {need:.0f} s, more than there are left")
                continue
            try:
                step, found = self._prepare(case, judge, precision, pool)
            except Exception as error:
                failures[case] = _Failure.in_case(case, error)
                tidy(self.device)
                continue
            if found.check.problem is not None:
                yield record(case, WRONG, reason=found.check.problem, check=found.check)
            else:
                steps[case], ready[case] = step, found
                if self.budget.seconds < math.inf and case.mode == EAGER and case.variant == ORIGINAL:
                    a_pass = clock(self.device)(step)
            del step

        def failed(case: Case, error: Exception) -> None:
            failures[case] = _Failure.in_case(case, error)
            tidy(self.device)

        timed = []
        effort = self.effort
        limit = min(effort.limit, self.budget.left())
        for turn in turns(steps, clock(self.device), effort.turns, effort.warm_up, limit, failed, effort.fewest):
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
        placed = judge.bench.place(judge.networks.of(case.variant), case.variant, precision)
        step: Step = judge.bench.step(placed, case.variant, precision, case.mode)
        peak = Peak(self.device, (*placed.parameters(), *placed.buffers()))
        most: int | None = None
        if case.mode == CAPTURED:
            step = Captured(step, pool)
            most = peak.so_far()
        # Before any training step changes the weights.
        check = judge.judge(case.variant, case.mode, precision, step.signals())
        # On the CPU the operations of compiled code cannot be watched.
        if case.mode == EAGER or (case.mode == COMPILED and self.device.type == "cuda"):
            most = peak.of(step)
        return step, _Ready(check, most)

    def _need(self, case: Case, networks: Networks, a_pass: float, number: int) -> float:
        """Seconds until enough turns of so many cases are done, this one included, if a pass takes ``a_pass``."""
        layers = sum(bool(module._parameters) for module in networks.original.modules())
        passes = _CHECKING + (self.effort.warm_up + min(_WORTH, self.effort.turns)) * number
        return _LAYER.get(case.mode, 0.0) * layers + passes * a_pass

    def _share(self, judge: Judge, precision: Precision, cases: Sequence[Case]) -> Share | None:
        """Of the original as it is; None where nobody asks, or ``fuse`` takes nothing of it."""
        if judge.bench.task != FORWARD or not any(case.variant in FUSING for case in cases):
            return None
        try:
            report = judge.networks.fusion()
        except ExDAError:
            return None
        placed = judge.bench.place(judge.networks.original, ORIGINAL, precision)
        return share(placed, judge.bench.step(placed, ORIGINAL, precision), report)

    def _cost(self, comparison: Comparison, networks: Networks, shared: Share | None, *, patched: bool) -> Cost:
        least = floor_bytes(networks.report, comparison) if comparison.task == FORWARD else None
        return Cost(
            networks.parameters,
            networks.report.extra_parameters if patched else 0,
            networks.macs(comparison),
            networks.extra_macs(comparison) if patched else 0,
            None if least is None else least / self.origin.copy_bandwidth,
            shared.blocks if shared else None,
            shared.fused if shared else None,
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

    @classmethod
    def in_case(cls, case: Case, error: Exception) -> _Failure:
        """Of a case; what another compiler makes of a network as it is, is no fault of what is measured here."""
        failure = cls.of(error)
        others = case.mode in (COMPILED, ONNX) and case.variant == ORIGINAL
        return replace(failure, status=SKIPPED) if others and failure.status == ERROR else failure
