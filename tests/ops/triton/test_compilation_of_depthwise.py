from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("compilation.py")
PACKAGE = "exda_primitives.ops.triton"


def kernels(dtype: str, run: int) -> list[tuple[str, str, dict[str, Any]]]:
    pointers = dict.fromkeys(("x", "dy", "dz", "weight", "bias", "out", "dx"), f"*{dtype}") | {"partials": "*fp32"}
    sizes = [f"{name}_{axis}" for name in ("x", "dy", "dz") for axis in ("image", "channel", "row")]
    integers = ("CHANNELS", "H", "W", *sizes)
    common = pointers | dict.fromkeys(integers, "i32") | {"TYPE": "float32", "RUN": run}
    common |= dict.fromkeys(("x_column", "dy_column", "dz_column"), 1)
    # Triton makes constants of integers that are 1.
    ones = dict.fromkeys(integers, 1)
    forward = (f"{PACKAGE}.depthwise_forward", "depthwise_kernel", common | {"WIDTH": 64})
    sliding = {"BX": 64, "CH": 2 * run, "RY": 16, "UNROLL": 2}
    backward = (f"{PACKAGE}.depthwise_backward", "depthwise_backward_kernel", common | sliding)
    variants = [
        (forward, {"ACTIVATION": "none", "dy": None, "bias": None}),
        (forward, {"ACTIVATION": "gelu"}),
        (forward, {"ACTIVATION": "gate", "dy": None}),
        (forward, {"ACTIVATION": "gate"} | ones),
        (backward, {}),
        (backward, {"dx": None}),
        (backward, {"partials": None}),
        (backward, ones),
    ]
    return [(module, name, arguments | given) for (module, name, arguments), given in variants]


@pytest.mark.parametrize(("capability", "dtype", "run"), [("80", "fp32", 4), ("90", "bf16", 8)])
def test_kernels_compile(capability: str, dtype: str, run: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    found = subprocess.run(
        [sys.executable, str(SCRIPT), capability],
        input=json.dumps(kernels(dtype, run)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    # Shared memory for sums over threads and for neighbours in other threads: what any program has without asking.
    assert max(json.loads(found.stdout)) <= 48 * 1024
