from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

from exda_primitives.errors import InputError
from exda_primitives.ops.triton import launch


def test_tritons_own_functions_are_interpreted_too() -> None:
    # Triton decorates `tl.sum` and others when it is imported: conftest.py has to set TRITON_INTERPRET before that.
    assert launch.INTERPRETED
    assert not isinstance(tl.sum, triton.JITFunction)


@given(st.integers(1, 10_000))
def test_column_blocks_leave_few_lanes_idle(width: int) -> None:
    size = launch.column_block(width)
    assert size.bit_count() == 1
    assert size <= 1024
    # Idle are at most an eighth of the width, or as few as in any block.
    idle = {block: -width % block for block in (1024, 512, 256, 128, 64, 32, 16, size)}
    assert idle[size] < width
    assert 8 * idle[size] <= width or idle[size] == min(idle.values()) or width < 16


@given(st.integers(1, 1000), st.integers(1, 100))
def test_divide_up_covers_everything_without_an_empty_block(a: int, b: int) -> None:
    assert (launch.divide_up(a, b) - 1) * b < a <= launch.divide_up(a, b) * b


def test_row_aligned() -> None:
    x = torch.zeros(2, 4, 3, 33)
    assert not launch.row_aligned(x)
    assert launch.row_aligned(x.new_zeros(2, 4, 3, 32))
    assert launch.row_aligned(x.new_zeros(2, 8, 3, 32)[:, 2:5])
    assert not launch.row_aligned(x.new_zeros(2, 4, 3, 32)[..., 1:17])
    assert not launch.row_aligned(x.new_zeros(2, 4, 3, 40)[..., :32])
    assert not launch.row_aligned(x.new_zeros(2, 4, 32, 32).transpose(2, 3))
    assert not launch.row_aligned(x.new_zeros(2, 16, 16, 16).to(memory_format=torch.channels_last))


def test_an_unsupported_reason_becomes_an_error() -> None:
    launch.require("kernel", None)
    with pytest.raises(InputError, match="kernel: the reason; use the 'torch' backend"):
        launch.require("kernel", "the reason")


@pytest.mark.parametrize(("capability", "refused"), [((7, 5), True), ((8, 0), False), ((9, 0), False)])
def test_old_gpus_are_refused(capability: tuple[int, int], refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        device = torch.device("cuda", 0)

    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = launch.device_unsupported_reason(OnCuda())  # type: ignore[arg-type]
    assert (found is not None) == refused
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert "ROCm" in str(launch.device_unsupported_reason(OnCuda()))  # type: ignore[arg-type]


def test_kernels_import_and_refuse_the_cpu_without_an_interpreter() -> None:
    program = """
import torch
from exda_primitives.ops.triton.depthwise import depthwise, depthwise_forward
print(type(depthwise_forward.depthwise_kernel).__name__, len(depthwise_forward.depthwise_kernel.configs))
try:
    depthwise(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 3, 3))
except ValueError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    output = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert output.startswith("Kernel 5")
    assert "exda::depthwise: the tensor is on cpu" in output
