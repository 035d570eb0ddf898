"""Runs a network, exported by ``torch.onnx``, by another program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ...errors import ExDAError
from ..export.onnx_file import write_captured
from .memory import out_of_memory


def run_exported(
    program: str, model: nn.Module, image: Tensor, load: Callable[[Path, Tensor, Tensor], Callable[[], object]]
) -> Callable[[Tensor], Tensor]:
    """Exports a network and has a program load it.

    Args:
        program: its name, for errors.
        model: the network, on the device of ``image``.
        image: (B, C, H, W). Fixes the input's shape, dtype and device; this very tensor is read at every call.
        load: called with the file, ``image`` and the tensor of the output; returns what runs the network once, reading
            and writing the memory of both, so that no copies are timed.

    Returns:
        A function of ``image`` that computes the output; each call overwrites the same tensor.

    Raises:
        ExDAError: the network cannot be exported, or the program cannot run it on this device.
    """
    try:
        with TemporaryDirectory() as folder, torch.no_grad():
            output = torch.empty_like(model(image), memory_format=torch.contiguous_format)
            file = Path(folder) / "network.onnx"
            write_captured(model, image, file)
            run = load(file, image, output)
        run()
    except ExDAError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise ExDAError(f"{program} cannot run this network: {type(error).__name__}: {error}") from None

    def forward(given: Tensor) -> Tensor:
        # The program knows both tensors only by their addresses: any other input would be ignored.
        assert given is image
        run()
        return output

    return forward
