"""Runs a network by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ...extras import require_extra
from .exported import run_exported


def compiled(model: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """Has OpenVINO run a network on the CPU, in float32, with as many threads as PyTorch has.

    See ``exported.run_exported``.
    """
    return run_exported("OpenVINO", model, image, _load)


def _load(file: Path, image: Tensor, output: Tensor) -> Callable[[], object]:
    runtime = require_extra("openvino", "openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Otherwise it computes in bfloat16 on processors that have it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = runtime.Core()
    request = core.compile_model(core.read_model(str(file)), "CPU", settings).create_infer_request()
    request.set_input_tensor(runtime.Tensor(image.numpy(), shared_memory=True))
    request.set_output_tensor(runtime.Tensor(output.numpy(), shared_memory=True))
    run: Callable[[], object] = request.infer
    return run
