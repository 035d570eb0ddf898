"""Runs a network by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ...errors import ExDAError
from ..export.onnx_file import session, write_captured
from .memory import out_of_memory

_ELEMENTS = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}
"""ONNX's numbers for element types, from ``onnx.TensorProto``."""


def exported(model: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """Exports a network by ``torch.onnx``, to run it by onnxruntime with as many threads as PyTorch has.

    Args:
        model: the network, on the device of ``image``.
        image: (B, C, H, W). Fixes the input's shape, dtype and device; this very tensor is read at every call.

    Returns:
        A function of ``image`` that computes the output; each call overwrites the same tensor.

    Raises:
        ExDAError: the network cannot be exported, or onnxruntime cannot run it on this device.
    """
    kind = image.device.type
    try:
        with TemporaryDirectory() as folder, torch.no_grad():
            output = torch.empty_like(model(image), memory_format=torch.contiguous_format)
            file = Path(folder) / "network.onnx"
            write_captured(model, image, file)
            running = session(file, kind)
        # onnxruntime reads and writes PyTorch's memory directly, so no copies are timed.
        binding = running.io_binding()
        for bind, (named, *_), held in (
            (binding.bind_input, running.get_inputs(), image),
            (binding.bind_output, running.get_outputs(), output),
        ):
            bind(named.name, kind, held.device.index or 0, _ELEMENTS[held.dtype], tuple(held.shape), held.data_ptr())
        running.run_with_iobinding(binding)
    except ExDAError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ExDAError(f"onnxruntime cannot run this network: {type(error).__name__}: {error}") from None

    def forward(given: Tensor) -> Tensor:
        # The session knows both tensors only by their addresses: any other input would be ignored.
        assert given is image
        running.run_with_iobinding(binding)
        return output

    return forward
