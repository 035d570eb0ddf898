"""Shrinks the tiles of the depthwise kernels for small maps."""

from __future__ import annotations

import pytest
import triton

from exda_primitives.ops.triton import depthwise_backward, depthwise_forward


def shrink_depthwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets few rows per program, all channels in one: the interpreter takes time for programs and masked rows."""
    config = triton.Config({"LANES": 64, "RY": 4, "UNROLL": 2})
    monkeypatch.setattr(depthwise_forward.depthwise_kernel, "configs", [config])
    for name, value in {"LANES": 64, "ROWS": 4, "UNROLL": 2}.items():
        monkeypatch.setattr(depthwise_backward, name, value)
