"""Kernels whose threads need nothing of each other, as they are compiled for aligned maps."""

from __future__ import annotations

import json
from pathlib import Path

import triton

from .test_host import not_interpreted

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])

# Maps of 64 columns, of which a program holds several channels; and of 1024, of which it holds one.
PROGRAM = """
import json, sys
import torch
from triton.runtime import driver
from benchmarks.gpu.driver import Driver
from exda_primitives.ops.triton.depthwise_forward import depthwise_kernel
from exda_primitives.ops.triton.tiles import wide

driver.set_active(Driver())
found = {}
for activation in ("none", "gelu", "gate"):
    for width in (64, 1024):
        x = torch.empty(1, 16, 1, width, dtype=torch.bfloat16)
        sizes = {name: 16 for name in ("CHANNELS", "H", "W", "x_image", "x_channel", "x_row")}
        strides = {"x_column": 1, "dy_image": 0, "dy_channel": 0, "dy_row": 0, "dy_column": 0}
        constants = {"ACTIVATION": activation, "WIDTH": width, "RUN": 8, "TYPE": wide(x.dtype)}
        given = {"x": x, "weight": x, "bias": None, "shift": None, "dy": None, "out": x}
        config = depthwise_kernel.configs[0].all_kwargs()
        made = depthwise_kernel.fn.run(grid=(1,), warmup=True, **given, **sizes, **strides, **constants, **config)
        found[f"{activation} {width}"] = made.asm["ptx"].count("bar.sync"), made.metadata.shared
open(sys.argv[1], "w").write(json.dumps(found))
"""


# Barriers of maps of 64 columns. Seen: none with Triton 3.2 and 3.6, which come with PyTorch 2.6 and 2.11; 3.8 takes
# what is loaded at the ends of a run through shared memory, whichever way round it is named.
MOST = {"none": 0, "gelu": 0, "gate": 0} if VERSION <= (3, 6) else {"none": 55, "gelu": 55, "gate": 107}


def test_a_depthwise_convolution_has_none(tmp_path: Path) -> None:
    not_interpreted("-c", PROGRAM, str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 6
    for activation, most in MOST.items():
        barriers, shared = found[f"{activation} 64"]
        assert barriers <= most
        assert (shared > 0) == (barriers > 0)
        # Of one channel a program, there are no neighbours to wait for.
        assert found[f"{activation} 1024"] == [0, 0]
