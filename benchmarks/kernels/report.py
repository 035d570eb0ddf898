"""Report what the kernels of a Restormer's fused blocks compile to for compute capability 9.0, and the bytes they move.

They are compiled as a launch would, at each level and in their first configuration; no GPU is needed. The milliseconds
are the bytes over the given bandwidth: they include no launch, no arithmetic and no cache.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton

from benchmarks.gpu.driver import CAPABILITY
from exda_primitives.workbench.shared.machine import machine

from . import machine_code, tables
from .host import RESULTS
from .machine_code import MachineCode, configurations
from .passes import Network, Pass, floor, passes

COMMAND = "python -m benchmarks.kernels report"
_PROCESSES = 2

Job = tuple[str, int]
"""A launch as JSON, and the index of a configuration."""


def run(
    size: int, dtypes: Sequence[str], tb_per_second: float, training: bool, every: bool, out: Path = RESULTS
) -> dict[str, Any]:
    """Writes ``kernels_report.json`` and ``kernels_report.md`` and returns what the former holds.

    Args:
        size: side of the square image in pixels.
        dtypes: names in ``bench.precision.PRECISIONS``.
        tb_per_second: assumed bandwidth of the GPU's memory in TB/s.
        training: whether to include a training step's passes; 16-bit formats then run under autocast.
        every: whether to compile all configurations, not only the first.
        out: folder of the results.
    """
    torch.set_num_threads(1)
    networks = [
        Network(dtype, patched, step)
        for dtype in dtypes
        for step in ((False, True) if training else (False,))
        for patched in (True, False)
    ]
    started = [list(passes(size, network)) for network in networks]
    code = compiled(jobs(chain.from_iterable(started), every))
    numbers = {job: number for number, job in enumerate(code)}
    command = f"{COMMAND} --size {size} --dtype {' '.join(dtypes)} --tb-per-second {tb_per_second:g}"
    result = {
        "command": command + " --training" * training + " --every" * every,
        "machine": machine() | {"triton": triton.__version__},
        "capability": CAPABILITY / 10,
        "size": size,
        "tb_per_second": tb_per_second,
        "networks": [
            dataclasses.asdict(network)
            | {
                "launches": sum(each.blocks for each in found if each.launch is not None),
                "bytes": sum(each.blocks * each.moved for each in found),
                "floor_bytes": floor(size, network.dtype),
                "passes": [_plain(each, numbers, tb_per_second) for each in found],
            }
            for network, found in zip(networks, started, strict=True)
        ],
        "compiled": [_described(job, each) for job, each in code.items()],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "kernels_report.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "kernels_report.md").write_text(tables.markdown(result))
    return result


def jobs(of: Iterable[Pass], every: bool) -> Iterator[Job]:
    """Yields the first configuration of each distinct launch; then, with ``every``, all others."""
    launches = dict.fromkeys(_key(each) for each in of if each.launch is not None)
    yield from ((launch, 0) for launch in launches)
    if every:
        for launch in launches:
            yield from ((launch, index) for index in range(1, len(configurations(json.loads(launch)))))


def compiled(of: Iterable[Job]) -> dict[Job, MachineCode | str]:
    """Compiles jobs in two processes; the result of one that does not compile is the error's text."""
    given = list(of)
    context = get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, context, torch.set_num_threads, (1,)) as pool:
        return dict(zip(given, pool.map(_compiled, given), strict=True))


def _compiled(job: Job) -> MachineCode | str:
    launch, index = job
    return machine_code.of(json.loads(launch), index)


def _key(each: Pass) -> str:
    return json.dumps(each.launch, sort_keys=True)


def _plain(each: Pass, numbers: dict[Job, int], tb_per_second: float) -> dict[str, Any]:
    return {
        "level": each.level,
        "blocks": each.blocks,
        "name": each.name,
        "bytes": each.moved,
        "ms": round(1e-9 * each.blocks * each.moved / tb_per_second, 4),
        "compiled": None if each.launch is None else numbers[_key(each), 0],
    }


def _described(job: Job, code: MachineCode | str) -> dict[str, Any]:
    launch, index = json.loads(job[0]), job[1]
    return {
        "kernel": launch["kernel"],
        "configuration": index,
        "sets": configurations(launch)[index][2],
        "arguments": launch["arguments"],
        **({"error": code} if isinstance(code, str) else dataclasses.asdict(code)),
    }
