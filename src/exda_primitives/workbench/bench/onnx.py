"""Runs a network by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..shared.onnx_session import session
from .exported import run_exported

_ELEMENTS = {torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}
"""ONNX's numbers for element types, from ``onnx.TensorProto``."""


def exported(model: nn.Module, image: Tensor) -> Callable[[Tensor], Tensor]:
    """Has onnxruntime run a network, with as many threads as PyTorch has: see ``exported.run_exported``."""
    return run_exported("onnxruntime", model, image, _load)


def _load(file: Path, image: Tensor, output: Tensor) -> Callable[[], object]:
    kind = image.device.type
    running = session(file, kind, torch.get_num_threads())
    binding = running.io_binding()
    for bind, (named, *_), held in (
        (binding.bind_input, running.get_inputs(), image),
        (binding.bind_output, running.get_outputs(), output),
    ):
        bind(named.name, kind, held.device.index or 0, _ELEMENTS[held.dtype], tuple(held.shape), held.data_ptr())
    return partial(running.run_with_iobinding, binding)
