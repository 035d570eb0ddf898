"""Python's work for a block before its kernels run, in a process without Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu.checkout import ROOT

from benchmarks.kernels import mocked

# Kernels start in three ways: by Triton while a block's launches are recorded ("written down"), later from that record
# ("as written"), and without a record one by one past Triton. Each way must hand the same values to the driver.
COMPARE = """
import torch
from benchmarks.gpu import blocks
from benchmarks.gpu.blocks import Block
from benchmarks.kernels import mocked
from exda_primitives.ops.triton import inference

def address(x):
    # Addresses in the block's own memory may differ.
    return known.get(x, "memory") if type(x) is int and x > 2**32 else x

def start(compiled, *values):
    values = [x.data_ptr() if isinstance(x, torch.Tensor) else x for x in values]
    handed.append((compiled.name, *map(address, values)))

mocked.Compiled.start = start
steps = inference.attention_step, inference.gated_step
for bias in (False, True):
    block = Block("block", 16, 2, 6, 16, bias=bias)
    model, x = blocks.fused(block), torch.zeros(block.shape)
    known = {each.data_ptr(): name for name, each in model.named_parameters()} | {x.data_ptr(): "x"}
    ways, handed = [], []
    with torch.no_grad(), mocked.launches(tf32=True):
        model(x)
        for way in ("written down", "as written", "one by one"):
            if way == "written down":
                inference.recorded_attention.forget()
                inference.recorded_gated.forget()
            handed = []
            if way == "one by one":
                inference.attention_step = inference.gated_step = lambda *_: None
            model(x)
            ways.append(handed)
        inference.attention_step, inference.gated_step = steps
    assert [len(each) for each in ways] == [11, 11, 11], ways
    for written, later, alone in zip(*ways):
        assert written[:4] == later[:4] == alone[:4], (written, later, alone)
        # Left out between: the stream, what was compiled, and what profilers ask for.
        assert written[10:] == later[10:] == alone[10:], (written, later, alone)
    assert {"x", "0.attn.temperature"} <= {x for each in handed for x in each if type(x) is str}
"""


def run_without_interpreter(*arguments: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=inherited | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_each_way_to_start_a_kernel_hands_over_the_same() -> None:
    run_without_interpreter("-c", COMPARE)


def test_the_host_command_writes_json_and_a_table(tmp_path: Path) -> None:
    run_without_interpreter("-m", "benchmarks.kernels", "host", "--turns", "2", "--out", str(tmp_path))
    result = json.loads((tmp_path / "kernels_host.json").read_text())
    started = {name: sum(each.values()) for name, each in result["kernels_started"].items()}
    assert started == {"original": 0, "patched": 0, "fused": 8, "fused, patched": 11}
    assert result["ratio_to_original"]["original"] == 1
    assert all(len(each) == 2 for each in result["microseconds_of_each_turn"].values())
    assert result["machine"]["triton"]
    table = (tmp_path / "kernels_host.md").read_text()
    assert all(f"| {name} |" in table for name in started)


def test_mocked_launches_are_refused_under_the_interpreter() -> None:
    with pytest.raises(RuntimeError, match="unset TRITON_INTERPRET"), mocked.launches():
        pass
