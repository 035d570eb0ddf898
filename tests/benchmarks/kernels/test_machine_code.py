"""Machine code of the passes that take the most time, for aligned maps in bfloat16."""

from __future__ import annotations

import json
from pathlib import Path

import triton

from .test_host import run_without_interpreter

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])

PROGRAM = """
import dataclasses, json, sys
import torch
from benchmarks.gpu import specs
from benchmarks.kernels import machine_code

torch.set_num_threads(1)
calls = specs.read()

def launch(call, kernel, **constants):
    given = {"dtype": "bfloat16", "aligned": True}
    for each in calls[call]:
        arguments = each["arguments"]
        if each["kernel"] == kernel and given in arguments.values() and constants.items() <= arguments.items():
            return each
    raise SystemExit(f"no launch of {kernel} with {constants}")

def sized(spec, **constants):
    return spec | {"arguments": spec["arguments"] | constants}

found = {}
def compile(name, spec):
    code = machine_code.of(spec, 0)
    found[name] = {"error": code} if isinstance(code, str) else dataclasses.asdict(code)
"""

# Maps of 64 columns, where a program holds several channels, and of 1024 columns, where it holds one.
STENCILS = """
for activation in ("none", "gelu", "gate"):
    spec = launch("A", "depthwise_kernel", ACTIVATION=activation, RUN=8, dy=None)
    for width in (64, 1024):
        compile(f"{activation} {width}", sized(spec, WIDTH=width))
spec = launch("B", "depthwise_backward_kernel", RUN=8)
compile("backward 64", sized(spec, BX=64, CH=16))
compile("backward 1024", sized(spec, BX=1024, CH=1))
"""

PRODUCTS = """
compile("norm and product", launch("A", "norm_pointwise_kernel", OUTPUTS=510))
compile("mix", launch("A", "mix_kernel", C0=96, C1=96, C2=1))
compile("gate and product", launch("A", "gated_product_kernel", ROWS=96))
compile("gram", launch("A", "_gram_kernel", C=96, K=1))
compile("gram's gradient", launch("B", "_gram_backward_kernel", C=96, K=1))
compile("gradients of matrices", launch("B", "matrix_gradients_kernel", ROWS=96, TRANSPOSED=False))
compile("gradients of weights", launch("B", "matrix_gradients_kernel", ROWS=96, TRANSPOSED=True))
compile("products sent back", launch("B", "mix_kernel", ROWS=96, TRANSPOSED=True))
"""

WRITE = """
open(sys.argv[1], "w").write(json.dumps(found))
"""


def compiled(what: str, folder: Path) -> dict[str, dict[str, int]]:
    run_without_interpreter("-c", PROGRAM + what + WRITE, str(folder / "found.json"))
    found: dict[str, dict[str, int]] = json.loads((folder / "found.json").read_text())
    assert not [each["error"] for each in found.values() if "error" in each]
    return found


def test_stencils_neither_spill_nor_synchronise(tmp_path: Path) -> None:
    found = compiled(STENCILS, tmp_path)
    assert len(found) == 8
    assert not [name for name, each in found.items() if each["spilled"]]
    forward = [each for name, each in found.items() if not name.startswith("backward")]
    assert all((each["barriers"], each["shared"]) == (0, 0) for each in forward)
    # A thread has 16 pixels; GELU and the shift that comes with it take 19 instructions per pixel (39 by erf).
    assert found["gelu 1024"]["instructions"] - found["none 1024"]["instructions"] < 16 * 25
    backward = found["backward 64"], found["backward 1024"]
    assert max(each["registers"] for each in backward) < 128
    # What any program has without asking.
    assert max(each["shared"] for each in backward) <= 48 * 1024
    # The ten sums of a channel are added up together, once. Triton 3.2 makes threads wait for their own values, too.
    if VERSION >= (3, 6):
        assert max(each["barriers"] for each in backward) <= 5


def test_products_do_not_spill(tmp_path: Path) -> None:
    found = compiled(PRODUCTS, tmp_path)
    assert len(found) == 8
    assert not [name for name, each in found.items() if each["spilled"]]
    # What one program of an A100 can have; a newer GPU has more.
    assert max(each["shared"] for each in found.values()) <= 163 * 1024
