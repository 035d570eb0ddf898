"""Measure Python's time for a transformer block relative to the original's; kernels are launched but do not run.

PyTorch's own operations do run, on maps so small that their arithmetic hardly counts. All variants take turns in one
process. The fastest turn of each is reported: other load on the machine only ever makes a turn slower.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
import triton
from torch import nn

from benchmarks.gpu import blocks
from benchmarks.gpu.blocks import Block
from exda_primitives.workbench.shared.machine import machine
from exda_primitives.workbench.shared.tables import markdown_page, markdown_table, provenance

from . import mocked

COMMAND = "python -m benchmarks.kernels host"
RESULTS = Path(__file__).parents[1] / "results"

BLOCK = Block("host", 16, 1, 4, 4)
"""A block of Restormer with few channels, whose number does not change Python's time."""

VARIANTS = ("original", "patched", "fused", "fused, patched")
_WARM_UPS, _CALLS = 20, 2


def models() -> dict[str, nn.Module]:
    """Returns a block as it is, patched, fused, and both; in float32, since 16-bit formats take detours on CPUs."""
    plain = dataclasses.replace(BLOCK, patched=False)
    made = blocks.plain(plain), blocks.plain(BLOCK), blocks.fused(plain), blocks.fused(BLOCK)
    return dict(zip(VARIANTS, made, strict=True))


@torch.no_grad()
def measured(turns: int) -> dict[str, Any]:
    """Times all variants and returns for each: microseconds per call, ratio to the original, kernels started."""
    x = torch.zeros(BLOCK.shape)
    models_ = models()
    times: dict[str, list[float]] = {name: [] for name in models_}
    started = {}
    # With TF32, float32 is fused in the same way as 16-bit formats are.
    with mocked.launches(tf32=True) as counter:
        for name, model in models_.items():
            _seconds(model, x, _WARM_UPS)
            counter.clear()
            model(x)
            started[name] = dict(counter)
        for _ in range(turns):
            for name, model in models_.items():
                times[name].append(round(1e6 * _seconds(model, x, _CALLS), 1))
    fastest = {name: min(each) for name, each in times.items()}
    return {
        "microseconds": {name: round(each, 1) for name, each in fastest.items()},
        "ratio_to_original": {name: round(each / fastest["original"], 3) for name, each in fastest.items()},
        "kernels_started": started,
        "microseconds_of_each_turn": times,
    }


def run(turns: int, out: Path = RESULTS) -> str:
    """Measures, writes ``kernels_host.json`` and ``kernels_host.md``, and returns the latter's text."""
    torch.set_num_threads(1)
    result = {
        "command": COMMAND,
        "machine": machine() | {"triton": triton.__version__},
        "block": dataclasses.asdict(BLOCK),
        **measured(turns),
    }
    text = markdown(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / "kernels_host.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "kernels_host.md").write_text(text)
    return text


def markdown(result: dict[str, Any]) -> str:
    """Returns the result as a Markdown page."""
    rows = []
    for name, microseconds in result["microseconds"].items():
        started = sum(result["kernels_started"][name].values())
        rows.append([name, f"{microseconds:.0f}", f"{result['ratio_to_original'][name]:.2f}", str(started)])
    return markdown_page(
        "Python's time for a block",
        "A transformer block of Restormer without gradients, whose kernels are launched but do not run: "
        f"{len(result['microseconds_of_each_turn']['original'])} turns in one process, the fastest of each.",
        markdown_table(["", "microseconds", "ratio to the original", "Triton kernels started"], rows),
        provenance(result),
    )


def _seconds(model: nn.Module, x: torch.Tensor, calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        model(x)
    return (time.perf_counter() - begun) / calls
