"""Runs comparisons: builds and checks the cases, measures memory, times them in turns, and yields a record per case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from ...errors import ExDAError
from .bandwidth_floor import floor_bytes
from .budget import Budget
from .cases import (
    CAPTURED,
    COMPILED,
    EAGER,
    EXPORTED,
    FORWARD,
    FUSING,
    ONNX,
    OPENVINO,
    ORIGINAL,
    Case,
    Comparison,
    skip_reason,
)
from .check import Check, Checker
from .memory import Peak, free_memory, out_of_memory
from .networks import Networks
from .precision import PRECISIONS, Precision
from .record import ERROR, OUT_OF_MEMORY, OUT_OF_TIME, SKIPPED, TIMED, WRONG, Cost, Origin, Record
from .share import Share, share
from .steps import Bench, Captured, Step
from .timing import FEWEST_TURNS, clock, ratio, turns

_LENGTH = 300
"""Characters. A record keeps no more of an error message."""

_LAYER = {ONNX: 0.05, OPENVINO: 0.05, COMPILED: 0.2}
"""Seconds that exporting or compiling takes per module with parameters of its own. Measured: 17 s and 64 s for a
Restormer, on one core of a Xeon, torch 2.14."""

_CHECKING = 4
"""Passes that a case takes before its turns: one check at identity init, one with other new parameters, and two to
measure memory."""

_MIN_TURNS = 3
"""A further case is started only if there is time for this many turns."""

_MIN_PASSES = 10
"""Passes before the turns when the original is compared with one other case: two float64 references, each worth three
passes, and the checks."""


@dataclass(frozen=True)
class Effort:
    """How long to measure. In a turn, each case of a comparison runs once.

    Attributes:
        turns: turns of a comparison that count.
        warm_up: turns before these.
        limit: seconds after which no further turn starts, once there are ``fewest``.
        fewest: turns that are done however long they take.
    """

    turns: int
    warm_up: int
    limit: float
    fewest: int = FEWEST_TURNS

    def least(self, seconds: float) -> float:
        """Estimates the fewest seconds for comparing the original with one other case, if a pass takes ``seconds``."""
        return seconds * (_MIN_PASSES + 2 * (self.warm_up + self.fewest))


@dataclass(frozen=True)
class _Ready:
    """A checked case that may be timed: its check, and its peak memory in bytes (None if not measurable)."""

    check: Check
    peak: int | None


class Harness:
    """Runs comparisons on a device, one after the other.

    Args:
        device: where all networks run.
        effort: how long to measure.
        origin: command and machine, written into every record.
        build: makes the networks of a backbone from its name.
        budget: time limit; cases that would exceed it are left out. Unlimited by default.
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
        self._checker: tuple[tuple[Comparison, bool], Checker] | None = None

    def run(
        self, comparison: Comparison, cases: Sequence[Case], progress: Callable[[float], None] = lambda _: None
    ) -> Iterator[Record]:
        """Yields one record per case as it finishes; no case is missing.

        A case that the budget has no time for gets the status ``OUT_OF_TIME``.

        Args:
            comparison: the settings that all cases share.
            cases: the cases of this comparison.
            progress: called with the share of the comparison that is done, from 0 to 1.
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
        checker = self._checker_of(comparison, precision, patched=any(case.patched for case in runnable))
        if isinstance(checker, _Failure):
            self._checker = None
            yield from (Record(case, checker.status, self.origin, checker.reason) for case in runnable)
        else:
            with precision.settings():
                yield from self._compare(checker, precision, runnable, progress)
            # Otherwise each shape counts towards the limit of recompilations, after which PyTorch stops compiling.
            torch.compiler.reset()
        free_memory(self.device)

    def _unpatched(self, case: Case) -> str | None:
        """Returns why there is no patched network for a case that needs one, or None."""
        patched = self._networks(case.comparison.backbone).patched if case.patched else None
        return f"{case.variant}: {patched}" if isinstance(patched, str) else None

    def _checker_of(self, comparison: Comparison, precision: Precision, *, patched: bool) -> Checker | _Failure:
        # Comparisons that differ only in number format follow each other and share one checker, with its references.
        key = replace(comparison, precision=""), patched
        try:
            if self._checker is None or self._checker[0] != key:
                # Frees the old references before new ones are made.
                self._checker = None
                networks = self._networks(comparison.backbone)
                shape = (comparison.batch, comparison.height, comparison.width, networks.channels)
                bench = Bench.of(self.device, comparison.task, *shape)
                self._checker = key, Checker(networks, bench, patched=patched)
        except Exception as error:
            return _Failure.of(error, "nothing can be checked without a reference: ")
        checker = self._checker[1]
        try:
            own = checker.own(precision).relative
        except Exception as error:
            failure = _Failure.of(error, f"the original cannot run in {precision.name}: ")
            # That the original does not support a number format is not an error of what is measured here.
            return replace(failure, status=SKIPPED) if failure.status == ERROR else failure
        # `not <`, so that NaN is refused as well as infinity.
        if not own < math.inf:
            return _Failure(SKIPPED, f"the original gives no finite numbers in {precision.name}")
        return checker

    def _compare(
        self, checker: Checker, precision: Precision, cases: Sequence[Case], progress: Callable[[float], None]
    ) -> Iterator[Record]:
        shared = self._share(checker, precision, cases)
        costs = {
            patched: self._cost(cases[0].comparison, checker.networks, shared, patched=patched)
            for patched in {case.patched for case in cases}
        }

        def record(case: Case, status: str, **found: Any) -> Record:
            return Record(case, status, self.origin, cost=costs[case.patched], **found)

        # Units of progress: one per prepared case, one per turn.
        parts = len(cases) + self.effort.turns
        pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        steps: dict[Case, Step] = {}
        ready: dict[Case, _Ready] = {}
        failures: dict[Case, _Failure] = {}
        a_pass = 0.0
        for done, case in enumerate(cases):
            progress(done / parts)
            need = self._need(case, checker.networks, a_pass, len(steps) + 1)
            # The first case, the original, always runs: the others' ratios are relative to it.
            if steps and need > self.budget.left():
                yield Record(
                    case, OUT_OF_TIME, self.origin, f"{case.mode}: takes about {need:.0f} s, more than is left"
                )
                continue
            try:
                step, found = self._prepare(case, checker, precision, pool)
            except Exception as error:
                failures[case] = _Failure.in_case(case, error)
                free_memory(self.device)
                continue
            if found.check.problem is not None:
                yield record(case, WRONG, reason=found.check.problem, check=found.check)
            else:
                steps[case], ready[case] = step, found
                if self.budget.seconds < math.inf and case.mode == EAGER and case.variant == ORIGINAL:
                    a_pass = clock(self.device)(step)
            # A wrong case must not hold its memory while the next one is prepared.
            del step

        def failed(case: Case, error: Exception) -> None:
            failures[case] = _Failure.in_case(case, error)
            free_memory(self.device)

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

    def _prepare(self, case: Case, checker: Checker, precision: Precision, pool: Any) -> tuple[Step, _Ready]:
        placed = checker.bench.place(checker.networks.of(case.variant), case.variant, precision)
        step: Step = checker.bench.step(placed, case.variant, precision, case.mode)
        peak = Peak(self.device, (*placed.parameters(), *placed.buffers()))
        most: int | None = None
        if case.mode == CAPTURED:
            step = Captured(step, pool)
            most = peak.so_far()
        # The check comes before the memory is measured, as a training step changes the weights.
        check = checker.check_case(case.variant, case.mode, precision, step.signals())
        # On the CPU memory is counted per operation, and the operations of compiled code cannot be seen.
        if case.mode == EAGER or (case.mode == COMPILED and self.device.type == "cuda"):
            most = peak.of(step)
        return step, _Ready(check, most)

    def _need(self, case: Case, networks: Networks, a_pass: float, number: int) -> float:
        """Estimates the seconds to prepare a case and then time ``number`` cases for `_MIN_TURNS` turns.

        Args:
            case: the next case.
            networks: the networks of the comparison.
            a_pass: seconds of a pass.
            number: cases to time, this one included.
        """
        layers = sum(bool(module._parameters) for module in networks.original.modules())
        passes = _CHECKING + (self.effort.warm_up + min(_MIN_TURNS, self.effort.turns)) * number
        return _LAYER.get(case.mode, 0.0) * layers + passes * a_pass

    def _share(self, checker: Checker, precision: Precision, cases: Sequence[Case]) -> Share | None:
        """Measures the share of the eager original's time in blocks that ``fuse`` takes.

        None if no fused forward pass is asked for, or if ``fuse`` finds no block.
        """
        if checker.bench.task != FORWARD or not any(case.variant in FUSING for case in cases):
            return None
        try:
            report = checker.networks.fusion()
        except ExDAError:
            return None
        placed = checker.bench.place(checker.networks.original, ORIGINAL, precision)
        return share(placed, checker.bench.step(placed, ORIGINAL, precision), report)

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
    """Status and text of an error. The exception itself is not kept: its traceback would keep tensors alive."""

    status: str
    reason: str

    @classmethod
    def of(cls, error: Exception, before: str = "") -> _Failure:
        text = f"{before}{type(error).__name__}: {' '.join(str(error).split())}"
        # An ExDAError is a deliberate refusal: the case cannot run here, but nothing is broken.
        status = OUT_OF_MEMORY if out_of_memory(error) else SKIPPED if isinstance(error, ExDAError) else ERROR
        return cls(status, text if len(text) <= _LENGTH else text[:_LENGTH] + "...")

    @classmethod
    def in_case(cls, case: Case, error: Exception) -> _Failure:
        """Classifies the error of a case.

        An original that ``torch.compile``, onnxruntime or OpenVINO cannot handle is skipped: the fault is not this
        library's.
        """
        failure = cls.of(error)
        others = case.mode in (COMPILED, *EXPORTED) and case.variant == ORIGINAL
        return replace(failure, status=SKIPPED) if others and failure.status == ERROR else failure
