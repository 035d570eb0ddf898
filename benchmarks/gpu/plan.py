"""The stages of each call, the most valuable first; each runs in processes of its own with a time limit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MODULE = (sys.executable, "-m", "benchmarks.gpu")


@dataclass(frozen=True)
class Stage:
    """A stage: one process, or several that run at the same time.

    Attributes:
        name: its name in the results.
        least: seconds that must be left for it to be started.
        most: seconds after which it is ended.
        processes: for each process, the arguments after ``python -m benchmarks.gpu stage``.
        under: a program with its options that runs the process, such as a sanitizer; empty for none.
        environment: variables that are added to the environment of the call.
    """

    name: str
    least: float
    most: float
    processes: tuple[str, ...]
    under: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def compiling(call: str, most: float, *beside: str) -> Stage:
    """Returns the stage that compiles a call's kernels on all cores but two, alongside other processes."""
    jobs = max((os.cpu_count() or 1) - 2, 1)
    return Stage("compile", 5, most, (*beside, *(f"compile --call {call} --share {i}/{jobs}" for i in range(jobs))))


def _one(name: str, least: float, most: float, process: str) -> Stage:
    return Stage(name, least, most, (process,))


_ALL = "--variants original fused fused-unpatched"
_PAIR = "--variants original fused --turns 8 --seconds 8"

CALLS: Mapping[str, tuple[Stage, ...]] = {
    # The first minutes show whether it runs, is correct, and how fast it is; all else follows.
    "A": (
        compiling("A", 110, "about", "networks"),
        _one("right", 10, 60, "correct --precisions bf16 --cases L1 R L3"),
        _one("ratio-1024", 40, 150, f"ratio --size 1024 {_ALL} --profile"),
        _one("ratio-256", 30, 75, f"ratio --size 256 {_ALL} --profile"),
        _one("configurations", 20, 90, "correct --precisions bf16 --configurations"),
        _one("right-others", 15, 60, "correct --precisions fp16 tf32 float32"),
    ),
    "B": (
        compiling("B", 75, "about", "networks"),
        _one("host", 15, 50, "host"),
        _one("gate-apart", 25, 60, f"ratio --size 1024 {_PAIR} --no-reference --profile --gate-apart"),
        _one("fp16", 25, 60, f"ratio --size 1024 --precision fp16 {_PAIR}"),
        _one("tf32", 25, 70, f"ratio --size 1024 --precision tf32 {_PAIR}"),
        _one("unaligned", 20, 60, f"ratio --size 1000 {_PAIR} --no-reference"),
        _one("gradients", 15, 60, "gradients --precisions bf16 tf32"),
        _one("training", 30, 90, "training --precision bf16"),
        _one("512", 20, 50, f"ratio --size 512 {_PAIR} --no-reference"),
        _one("float32", 25, 70, f"ratio --size 1024 --precision float32 {_PAIR} --no-reference"),
        _one("printed", 25, 70, "ratio --size 1024 --variants original torch reference --turns 6 --seconds 8"),
    ),
    "C": (
        _one("harness", 60, 200, "harness"),
        Stage(
            "memcheck",
            60,
            150,
            ("correct --precisions bf16 --cases L1-odd L3-odd",),
            "compute-sanitizer --tool memcheck --print-limit 5 --error-exitcode 9",
            {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        ),
    ),
}
