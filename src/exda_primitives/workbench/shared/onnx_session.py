"""Runs ONNX files by onnxruntime, on NumPy arrays. Nothing here needs PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExDAError
from ...extras import require_extra

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_NOTHING = 4
"""Log level of onnxruntime that logs only fatal errors; other errors are raised anyway."""


def session(file: Path, device: str = "cpu", threads: int | None = None) -> Any:
    """Opens an ``InferenceSession``.

    Args:
        file: an ONNX file.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for every provider that is there, in onnxruntime's own order.
        threads: threads that one operator may use; by default as many as the environment variable ``OMP_NUM_THREADS``
            says, which PyTorch follows, or else as onnxruntime decides.

    Raises:
        ExDAError: onnxruntime is missing, or does not support the device.
    """
    runtime = require_extra("onnxruntime", "onnx")
    there = runtime.get_available_providers()
    providers = there if device == "auto" else [_PROVIDERS[device]]
    if providers[0] not in there:
        raise ExDAError(f"onnxruntime has no {providers[0]} here; for CUDA run: pip install onnxruntime-gpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = _threads_by_environment() if threads is None else threads
    options.log_severity_level = _NOTHING
    return runtime.InferenceSession(str(file), options, providers=providers)


def _threads_by_environment() -> int:
    """Returns the number in ``OMP_NUM_THREADS``; 0, onnxruntime's own choice, if it holds none."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() else 0


class OnnxFile:
    """An ONNX file that makes one map of one map (B, C, H, W), opened by onnxruntime.

    Args:
        file: an ONNX file with one input and one output, in float32.
        device: what onnxruntime computes on, as for ``session``.
        threads: as for ``session``.

    Attributes:
        metadata: the file's names and values.
        shape: shape of its input; dynamic dimensions have names in place of numbers.

    Raises:
        ExDAError: onnxruntime is missing, or cannot run the file.
    """

    def __init__(self, file: Path, device: str = "cpu", threads: int | None = None) -> None:
        try:
            self._session = session(file, device, threads)
        except ExDAError:
            raise
        except Exception as error:
            raise ExDAError(f"{file}: onnxruntime cannot run it: {type(error).__name__}: {error}") from None
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            names = ", ".join(each.name for each in (*inputs, *outputs))
            raise ExDAError(
                f"{file}: has {len(inputs)} inputs and {len(outputs)} outputs ({names}); expected an image as the only "
                f"input and one output"
            )
        self._file, self._input, self.shape = file, inputs[0].name, inputs[0].shape
        if inputs[0].type != "tensor(float)" or len(self.shape) != 4:
            raise ExDAError(
                f"{file}: takes {inputs[0].type} of shape {self.shape}; expected tensor(float) of (batch, channels, "
                f"height, width)"
            )

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the file's output for a map (B, C, H, W).

        Raises:
            ExDAError: onnxruntime fails.
        """
        try:
            (output,) = self._session.run(None, {self._input: image})
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise ExDAError(f"{self._file}: onnxruntime fails on a map {image.shape}: {said}") from None
        made: NDArray[np.float32] = output
        return made
