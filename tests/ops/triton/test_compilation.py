from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exda_primitives.ops.triton.norm import _BACKWARD, _FORWARD, WHOLE, _blocking

SCRIPT = Path(__file__).with_name("compilation.py")
PACKAGE = "exda_primitives.ops.triton"


def pointers(dtype: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, f"*{dtype}") | dict.fromkeys(("partial", "logits", "chunks", "products", "du"), "*fp32")


def integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def norms(dtype: str) -> list[tuple[str, str, dict[str, Any]]]:
    module = f"{PACKAGE}.norm"
    shared = (
        pointers(dtype, "x", "dy", "weight", "bias", "out", "dx")
        | integers("PIXELS", "x_image", "x_channel", "dy_image", "dy_channel")
        | {"x_pixel": 1, "dy_pixel": 1, "EPS": 1e-5, "TYPE": "float32"}
    )
    kernels = []
    for channels, mean, absent in ((48, True, {}), (WHOLE + 1, False, {"weight": None, "bias": None, "partial": None})):
        for kernel, lane in (("layer_norm_kernel", _FORWARD), ("layer_norm_backward_kernel", _BACKWARD)):
            sizes = {"CHANNELS": channels, "SUBTRACT_MEAN": mean} | _blocking(channels, lane)
            kernels.append((module, kernel, shared | sizes | absent))
    return kernels


def norms_with_products(dtype: str) -> list[tuple[str, str, dict[str, Any]]]:
    module = f"{PACKAGE}.norm_pointwise"
    arguments = (
        pointers(dtype, "x", "dy", "norm_weight", "norm_bias", "weight", "bias", "out", "dx")
        | integers("PIXELS", "x_image", "x_channel", "dy_image", "dy_output")
        | {"x_pixel": 1, "dy_pixel": 1, "EPS": 1e-5, "TYPE": "float32", "SUBTRACT_MEAN": True, "PRECISION": "tf32"}
        | {"CHANNELS": 96, "OUTPUTS": 289, "SPLIT": 4096, "BC": 128, "BN": 64, "BO": 64}
    )
    return [
        (module, kernel, arguments)
        for kernel in ("norm_pointwise_kernel", "input_gradient_kernel", "weight_gradient_kernel")
    ]


def tokens(dtype: str) -> list[tuple[str, str, dict[str, Any]]]:
    module = f"{PACKAGE}.tokens"
    arguments = (
        pointers(dtype, "phi", "dg", "out", "dphi")
        | integers("MAPS", "H", "W", "h", "w", "CHUNKS", "phi_image", "phi_map", "phi_row")
        | integers("dg_image", "dg_map", "dg_row")
        | {"phi_column": 1, "dg_column": 1, "STRIDE": 2, "STEPS": 1, "KNOWN": 256, "BLOCK": 1024, "TYPE": "float32"}
    )
    # Triton makes constants of integers that are 1.
    ones = dict.fromkeys(("MAPS", "H", "W", "h", "w", "CHUNKS", "phi_image", "dg_image"), 1)
    return [
        (module, kernel, sizes)
        for kernel in ("pool_kernel", "upsample_kernel", "upsample_backward_kernel", "pool_backward_kernel")
        for sizes in ((arguments, arguments | ones) if dtype == "bf16" else (arguments,))
    ]


@pytest.mark.parametrize(("capability", "dtype"), [(90, "bf16")])
def test_every_kernel_compiles_for_a_gpu(capability: int, dtype: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, SCRIPT, str(capability)],
        input=json.dumps(norms(dtype) + norms_with_products(dtype) + tokens(dtype)),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # What one program of an A100 can have; a newer GPU has more.
    assert max(json.loads(run.stdout)) <= 163 * 1024
