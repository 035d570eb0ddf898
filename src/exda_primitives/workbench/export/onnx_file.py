"""Writes ONNX files by PyTorch, and runs them by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...extras import require_extra
from ..shared.onnx_session import OnnxFile
from .program import open_sizes, silence_exporters

INPUT, OUTPUT = "input", "output"

CAPTURED_OPSET = 18
"""The oldest opset that ``torch.export`` writes itself. If it fails to convert to an older one, it keeps this one."""

_OPEN = {0: "batch", 2: "height", 3: "width"}
"""The dynamic dimensions of an image, with their names in the file."""


def write_traced(model: nn.Module, image: Tensor, file: Path, opset: int) -> None:
    """Writes an ONNX file by tracing, which takes seconds and allows any opset; batch, height and width are dynamic.

    Numbers that the network computes from sizes in Python become constants, so the file must be checked at other sizes.

    Args:
        model: the network, in eval mode.
        image: (B, C, H, W) to trace the network with.
        file: the file to write.
        opset: version of the ONNX operators.
    """
    require_extra("onnx", "onnx")
    with silence_exporters(), torch.no_grad():
        torch.onnx.export(
            model,
            (image,),
            str(file),
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: _OPEN, OUTPUT: _OPEN},
        )


def write_captured(
    model: nn.Module, image: Tensor, file: Path, *, multiple: int | None = None, opset: int | None = None
) -> None:
    """Writes an ONNX file by ``torch.export``.

    Compared with tracing, it takes minutes for dynamic sizes, but supports more operators and keeps computations on
    sizes.

    Args:
        model: the network, in eval mode.
        image: (B, C, H, W) to capture the network with.
        file: the file to write.
        multiple: makes batch, height and width dynamic, the sides multiples of this; None fixes the image's shape.
        opset: version of the ONNX operators; None for PyTorch's default.
    """
    require_extra("onnxscript", "onnx")
    with silence_exporters(), torch.no_grad():
        written = torch.onnx.export(
            model,
            (image,),
            dynamo=True,
            dynamic_shapes=open_sizes(multiple) if multiple else None,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert written is not None
    written.save(str(file))


class OnnxNetwork(nn.Module):
    """A network that runs an ONNX file by onnxruntime on the CPU, on images (B, C, H, W) in float32.

    Args:
        file: an ONNX file with one input and one output.

    Raises:
        ExDAError: onnxruntime is missing, or cannot run the file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._onnx = OnnxFile(file, threads=torch.get_num_threads())
        self.metadata = self._onnx.metadata

    def forward(self, image: Tensor) -> Tensor:
        """Returns the file's output for images (B, C, H, W), on their device."""
        return torch.from_numpy(self._onnx(image.detach().cpu().numpy())).to(image.device)


def put_metadata(file: Path, metadata: Mapping[str, str]) -> None:
    """Adds names and values to an existing ONNX file."""
    onnx = require_extra("onnx", "onnx")
    held = onnx.load(str(file))
    held.producer_name, held.producer_version = "exda_primitives", metadata["version"]
    onnx.helper.set_model_props(held, dict(metadata))
    onnx.save(held, str(file))
