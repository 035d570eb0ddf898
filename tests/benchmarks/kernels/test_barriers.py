"""Kernels whose threads need nothing of each other, as they are compiled for aligned maps."""

from __future__ import annotations

import json
from pathlib import Path

from .test_host import not_interpreted

# Maps of 64 columns, of which a program holds several channels; and of 1024, of which it holds one.
PROGRAM = """
import json, sys
import torch
from triton.runtime import driver
from benchmarks.kernels.mocked import Driver
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


def test_a_depthwise_convolution_has_none(tmp_path: Path) -> None:
    not_interpreted("-c", PROGRAM, str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 6
    assert all(each == [0, 0] for each in found.values()), found
