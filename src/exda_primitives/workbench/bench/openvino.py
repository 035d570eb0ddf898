"""Runs a network by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ...errors import ExDAError
from ...extras import require_extra
from ..export.onnx_file import write_captured
from .memory import out_of_memory


def compiled(model: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """Exports a network by ``torch.onnx``, to run it by OpenVINO with as many threads as PyTorch has.

    Args:
        model: the network, on the CPU.
        image: (B, C, H, W), float32. Fixes the input's shape; this very tensor is read at every call.

    Returns:
        A function of ``image`` that computes the output; each call overwrites the same tensor.

    Raises:
        ExDAError: the network cannot be exported, or OpenVINO cannot run it.
    """
    runtime = require_extra("openvino", "openvino")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        # Otherwise it computes in bfloat16 on processors that have it.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        with TemporaryDirectory() as folder, torch.no_grad():
            output = torch.empty_like(model(image), memory_format=torch.contiguous_format)
            file = Path(folder) / "network.onnx"
            write_captured(model, image, file)
            core = runtime.Core()
            request = core.compile_model(core.read_model(str(file)), "CPU", settings).create_infer_request()
        # OpenVINO reads and writes PyTorch's memory directly, so no copies are timed.
        request.set_input_tensor(runtime.Tensor(image.numpy(), shared_memory=True))
        request.set_output_tensor(runtime.Tensor(output.numpy(), shared_memory=True))
        request.infer()
    except ExDAError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ExDAError(f"OpenVINO cannot run this network: {type(error).__name__}: {error}") from None

    def forward(given: Tensor) -> Tensor:
        # The request knows both tensors only by their addresses: any other input would be ignored.
        assert given is image
        request.infer()
        return output

    return forward
