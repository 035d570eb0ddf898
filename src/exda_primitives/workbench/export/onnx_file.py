"""Writes ONNX files by PyTorch, and runs them by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ExDAError
from ...extras import require_extra
from .program import open_sizes, silence_exporters

INPUT, OUTPUT = "input", "output"

CAPTURED_OPSET = 18
"""The oldest opset that ``torch.export`` writes itself. If it fails to convert to an older one, it keeps this one."""

_OPEN = {0: "batch", 2: "height", 3: "width"}
"""The dynamic dimensions of an image, with their names in the file."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_NOTHING = 4
"""Log level of onnxruntime that logs only fatal errors; other errors are raised anyway."""


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


def session(file: Path, device: str = "cpu") -> Any:
    """Opens an ``InferenceSession`` with as many threads as PyTorch has.

    Args:
        file: an ONNX file.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for every provider that is there, in onnxruntime's own order.

    Raises:
        ExDAError: onnxruntime is missing, or does not support the device.
    """
    runtime = require_extra("onnxruntime", "onnx")
    there = runtime.get_available_providers()
    providers = there if device == "auto" else [_PROVIDERS[device]]
    if providers[0] not in there:
        raise ExDAError(f"onnxruntime has no {providers[0]} here; for CUDA run: pip install onnxruntime-gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), _NOTHING
    return runtime.InferenceSession(str(file), options, providers=providers)


class OnnxNetwork(nn.Module):
    """A network that runs an ONNX file by onnxruntime, on images (B, C, H, W) in float32.

    Args:
        file: an ONNX file with one input and one output.
        device: what onnxruntime computes on, as for ``session``.

    Raises:
        ExDAError: onnxruntime is missing, or cannot run the file.
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
                f"{file}: has {len(inputs)} inputs and {len(outputs)} outputs ({names}); expected an image as the only "
                f"input and one output"
            )
        self.file, self.input, self.shape = file, inputs[0].name, inputs[0].shape
        if inputs[0].type != "tensor(float)" or len(self.shape) != 4:
            raise ExDAError(
                f"{file}: takes {inputs[0].type} of shape {self.shape}; expected tensor(float) of (batch, channels, "
                f"height, width)"
            )

    def check_restores(self) -> None:
        """Refuses a file that does not take one colour or grey image of any size.

        Raises:
            ExDAError: it has another number of channels or none in their place, or its sizes are fixed.
        """
        batch, channels, *sides = self.shape
        # A number is fixed, a name is not.
        if channels not in (1, 3) and sides[1] in (1, 3):
            shape = ", ".join(map(str, self.shape))
            raise ExDAError(
                f"{self.file}: takes ({shape}), the channels last; expected (batch, channels, height, width)"
            )
        if isinstance(channels, int) and channels not in (1, 3):
            raise ExDAError(f"{self.file}: takes images of {channels} channels; expected 3 (colour) or 1 (grey)")
        if any(isinstance(side, int) for side in sides):
            raise ExDAError(
                f"{self.file}: takes only images of {sides[0]} x {sides[1]} pixels; expected any height and width: "
                f"export it with dynamic sizes, as exda export does"
            )
        if isinstance(batch, int) and batch != 1:
            raise ExDAError(f"{self.file}: takes {batch} images at a time; expected any number, or 1")

    def forward(self, image: Tensor) -> Tensor:
        """Returns the file's output for images (B, C, H, W), on their device."""
        (output,) = self.session.run(None, {self.input: image.detach().cpu().numpy()})
        return torch.from_numpy(output).to(image.device)


def put_metadata(file: Path, metadata: Mapping[str, str]) -> None:
    """Adds names and values to an existing ONNX file."""
    onnx = require_extra("onnx", "onnx")
    held = onnx.load(str(file))
    held.producer_name, held.producer_version = "exda_primitives", metadata["version"]
    onnx.helper.set_model_props(held, dict(metadata))
    onnx.save(held, str(file))
