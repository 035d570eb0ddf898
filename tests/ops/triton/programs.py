"""Programs of the depthwise kernels that a small map fills."""

from __future__ import annotations

import pytest
import triton

from exda_primitives.ops.triton import depthwise_backward, depthwise_forward


def shrink_depthwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows a program and all channels in one: an interpreter's time goes by both, masked or not."""
    config = triton.Config({"LANES": 64, "RY": 4, "UNROLL": 2})
    monkeypatch.setattr(depthwise_forward.depthwise_kernel, "configs", [config])
    for name, value in {"LANES": 64, "ROWS": 4, "UNROLL": 2}.items():
        monkeypatch.setattr(depthwise_backward, name, value)
