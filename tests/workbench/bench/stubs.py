"""A tiny comparison, a backend whose output can be altered, and made-up records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from exda_primitives.ops import torch as concat_free
from exda_primitives.workbench.bench.cases import Case, Comparison
from exda_primitives.workbench.bench.check import Check
from exda_primitives.workbench.bench.record import TIMED, Cost, Origin, Record

CPU = torch.device("cpu")
MACHINE = {"cpu": "a processor", "cores": 2, "threads": 1, "python": "3.11", "torch": "2.6", "commit": "abc"}
ORIGIN = Origin("exda bench run", MACHINE, 1e10)
COMPARISON = Comparison("restormer-tiny", "forward", "float32", 1, 16, 24)
CHECK = Check("float64, output", 1e-7, 2e-7, 1e-7, 2e-7)
COST = Cost(1000, 100, 10**9, 10**8, 1e-3)


@dataclass(frozen=True)
class Altered:
    """Restormer's concat-free attention with an altered output."""

    alter: Callable[[Tensor, Any], Tensor]

    def __call__(self, x: Tensor, terms: Any) -> Tensor:
        return self.alter(concat_free.mdta(x, terms), terms)


def timed(
    variant: str = "original",
    mode: str = "eager",
    seconds: tuple[float, ...] = (0.1, 0.2, 0.3),
    ratio: float | None = 1.0,
    **comparison: Any,
) -> Record:
    case = Case(replace(COMPARISON, **comparison), variant, mode)
    return Record(case, TIMED, ORIGIN, None, CHECK, COST, seconds, ratio, ratio, 2**30)
