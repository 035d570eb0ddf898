"""A stand-in for OpenVINO, which no test needs to install: its calls as ``bench`` makes them, run by onnxruntime."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest


class Tensor:
    def __init__(self, values: np.ndarray[Any, Any], shared_memory: bool) -> None:
        # Without it, OpenVINO copies the values once, and reads none of later calls.
        assert shared_memory
        self.values = values


class Request:
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def set_input_tensor(self, tensor: Tensor) -> None:
        self.input = tensor.values

    def set_output_tensor(self, tensor: Tensor) -> None:
        self.output = tensor.values

    def infer(self) -> None:
        (given,) = self.session.get_inputs()
        self.output[...] = self.session.run(None, {given.name: self.input})[0]


class Core:
    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def read_model(self, file: str) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(file)

    def compile_model(self, session: onnxruntime.InferenceSession, device: str, settings: dict[str, Any]) -> Core:
        self.asked.append((device, settings))
        self.session = session
        return self

    def create_infer_request(self) -> Request:
        return Request(self.session)


def install(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Puts the stand-in into the place of OpenVINO; returns a list that gets device and settings of each network."""
    module = ModuleType("openvino")
    module.__spec__ = ModuleSpec("openvino", None)
    monkeypatch.setattr(Core, "asked", [])
    module.Core, module.Tensor = Core, Tensor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", module)
    return Core.asked


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes OpenVINO missing, whether it is installed or not."""
    monkeypatch.setitem(sys.modules, "openvino", None)
