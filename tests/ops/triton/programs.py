"""Programs of the depthwise kernels that are small enough for a small map to take many."""

from __future__ import annotations

import pytest
import triton

from exda_primitives.ops.triton import depthwise_backward, depthwise_forward


def shrink_depthwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels a program: an interpreter's time goes by rows, masked or not."""
    config = triton.Config({"LANES": 16, "RY": 4, "UNROLL": 2})
    monkeypatch.setattr(depthwise_forward.depthwise_kernel, "configs", [config])
    for name, value in {"LANES": 16, "ROWS": 4, "UNROLL": 2}.items():
        monkeypatch.setattr(depthwise_backward, name, value)
