"""ONNX files: written by PyTorch, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ExDAError
from ...extras import require_extra
from .program import open_sizes, quietly

INPUT, OUTPUT = "input", "output"

CAPTURED_OPSET = 18
"""Least that ``torch.export`` has its operators in; where it fails to write an older one, it goes on with this."""

_OPEN = {0: "batch", 2: "height", 3: "width"}
_NOTHING = 4
"""Of what onnxruntime logs: its errors are raised as well."""


def write_traced(model: nn.Module, image: Tensor, file: Path, opset: int) -> None:
    """By tracing, within seconds, in whatever opset; batch, height and width are open.

    Numbers that the network computes from sizes in Python become constants: it has to be checked at other sizes.

    Args:
        model: in eval mode.
        image: (B, C, H, W) to trace it with.
        file: to write.
        opset: of the operators.
    """
    require_extra("onnx", "onnx")
    with quietly(), torch.no_grad():
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
    """By ``torch.export``, which takes minutes for open sizes, knows more operators and keeps what sizes decide.

    Args:
        model: in eval mode.
        image: (B, C, H, W) to capture it with.
        file: to write.
        multiple: of height and width, which are then open, as is the batch; None for the image's shape alone.
        opset: of the operators; None for PyTorch's own choice.
    """
    require_extra("onnxscript", "onnx")
    with quietly(), torch.no_grad():
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


def session(file: Path, device: str = "cpu") -> Any:
    """An ``InferenceSession`` on a kind of device, with PyTorch's own number of threads.

    Raises:
        ExDAError: without onnxruntime, or where it has nothing for the device.
    """
    runtime = require_extra("onnxruntime", "onnx")
    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise ExDAError(f"onnxruntime has no {provider} here; for CUDA run: pip install onnxruntime-gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), _NOTHING
    return runtime.InferenceSession(str(file), options, providers=[provider])


class OnnxNetwork(nn.Module):
    """A file run by onnxruntime, as a network of images (B, C, H, W) in float32.

    Args:
        file: with one input and one output.
        device: kind of device that onnxruntime computes on.

    Raises:
        ExDAError: without onnxruntime, and for a file that it cannot run.
    """

    def __init__(self, file: Path, device: str = "cpu") -> None:
        super().__init__()
        try:
            self.session = session(file, device)
        except ExDAError:
            raise
        except Exception as error:
            raise ExDAError(f"{file}: onnxruntime cannot run it: {type(error).__name__}: {error}") from None
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            names = ", ".join(each.name for each in (*inputs, *outputs))
            raise ExDAError(
                f"{file}: has {len(inputs)} inputs and {len(outputs)} outputs ({names}); expected an image and what is "
                f"made of it"
            )
        self.input, shape = inputs[0].name, inputs[0].shape
        if inputs[0].type != "tensor(float)" or len(shape) != 4:
            raise ExDAError(
                f"{file}: takes {inputs[0].type} of shape {shape}; expected tensor(float) of (batch, channels, height, "
                f"width)"
            )

    def forward(self, image: Tensor) -> Tensor:
        """The file's output for (B, C, H, W)."""
        (output,) = self.session.run(None, {self.input: image.detach().cpu().numpy()})
        return torch.from_numpy(output).to(image.device)


def put_metadata(file: Path, metadata: Mapping[str, str]) -> None:
    """Writes names and values into a file that is there."""
    onnx = require_extra("onnx", "onnx")
    held = onnx.load(str(file))
    held.producer_name, held.producer_version = "exda_primitives", metadata["version"]
    onnx.helper.set_model_props(held, dict(metadata))
    onnx.save(held, str(file))
