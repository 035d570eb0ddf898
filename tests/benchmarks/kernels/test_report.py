"""Reports of the kernels' machine code and of the bytes that they move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import blocks
from benchmarks.kernels import machine_code, passes
from exda_primitives.models import Restormer

from .test_host import run_without_interpreter

CODE = """
 Function a_kernel:
  REG:48 STACK:24 SHARED:0 LOCAL:0 CONSTANT[0]:608
        /*0000*/                   LDC R1, c[0x0][0x28] ;          /* 0x00000a00ff017b82 */
                                                                   /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR6][R2.64] ;
        /*0020*/               @P1 LDG.E.U16 R9, desc[UR6][R2.64] ;
        /*0030*/              @!PT LDGSTS.E.BYPASS.LTC128B.128 [R4], desc[UR6][R2.64] ;
        /*0040*/                   LDG.E R9, desc[UR6][R2.64] ;
        /*0050*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0060*/                   STG.E.64 desc[UR6][R2.64], R4 ;
        /*0070*/             @!UP2 UIADD3 UR4, UR4, 0x1, URZ ;
        /*0080*/                   BRA 0x80;
        /*0090*/                   NOP;
"""

# A fake compiler: the real one takes seconds per kernel.
COMMAND = """
import sys
from benchmarks.kernels import __main__, report
from benchmarks.kernels.machine_code import MachineCode

def compiled(of):
    given = list(of)
    fine = MachineCode(40, 0, 1024, 2, {128: 3, 16: 1}, {64: 2}, 500)
    spills = MachineCode(255, 96, 1024, 2, {}, {32: 1}, 500)
    large = MachineCode(255, 96, 300_000, 2, {}, {32: 1}, 500)
    # The first kernel spills, the second does not compile, and a later configuration does not fit.
    special = {0: spills, 1: "PTXASError: no", 2: large}
    others = [job for job in given if job[1]]
    order = [given[0], given[1], others[0]]
    return {job: special[order.index(job)] if job in order else fine for job in given}

report.compiled = compiled
__main__.main(["report", "--size", "64", "--dtype", "bf16", "tf32", "--every", "--tb-per-second", "2", *sys.argv[1:]])
"""


def test_machine_code_is_parsed() -> None:
    code = machine_code.parsed(CODE, 512)
    assert (code.registers, code.spilled, code.shared, code.barriers, code.instructions) == (48, 24, 512, 1, 9)
    assert code.loads == {128: 2, 32: 1, 16: 1}
    assert code.stores == {64: 1}


@pytest.mark.parametrize("text", ["", " REG:48 STACK:24 ", "/*0000*/ BRA 0x80;"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no code or no register usage"):
        machine_code.parsed(text, 0)


def test_levels_count_the_blocks_of_restormer() -> None:
    with torch.device("meta"):
        network = Restormer()
    found = [each.norm1.body.weight.numel() for each in network.modules() if type(each).__name__ == "TransformerBlock"]
    for channels in (48, 192, 384):
        assert sum(level.blocks for level in blocks.LEVELS if level.channels == channels) == found.count(channels)
    assert blocks.LEVELS[1].blocks + blocks.LAST.blocks == found.count(96)


def test_the_floor_is_three_maps_per_block() -> None:
    maps = 4 * 48 * 64**2 + 12 * 96 * 32**2 + 12 * 192 * 16**2 + 8 * 384 * 8**2 + 8 * 96 * 64**2
    assert passes.floor(64, "bf16") == 3 * 2 * maps
    assert passes.floor(64, "float32") == 3 * 4 * maps


def test_the_report_command_writes_json_and_tables(tmp_path: Path) -> None:
    run_without_interpreter("-c", COMMAND, "--out", str(tmp_path))
    result = json.loads((tmp_path / "kernels_report.json").read_text())
    assert [(each["dtype"], each["patched"]) for each in result["networks"]] == [
        ("bf16", True),
        ("bf16", False),
        ("tf32", True),
        ("tf32", False),
    ]
    patched = result["networks"][0]
    # The network's launches: 10 per block, one more where the fold of many channels takes two, and one more where the
    # gate of many channels is a pass of its own.
    assert patched["launches"] == (4 + 12) * 10 + 8 * 11 + (12 + 8) * 12
    assert patched["bytes"] == sum(each["blocks"] * each["bytes"] for each in patched["passes"])
    first, *_ = [each for each in patched["passes"] if each["name"] == "depthwise"]
    # Reads and writes the maps of q, k and v, 48 channels each; 9 weights per channel.
    assert first["bytes"] == 2 * (2 * 144 * 64**2 + 9 * 144)
    assert first["ms"] == pytest.approx(4 * first["bytes"] / 2e9, abs=1e-4)
    assert {each["configuration"] for each in result["compiled"]} > {0, 1, 2}
    text = (tmp_path / "kernels_report.md").read_text()
    assert "| L1 | depthwise ACTIVATION gate, WIDTH 64 | 40 | 0 | 1024 | 2 | 3x128 1x16 | 2x64 | 500 |" in text
    remarks = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line.rpartition(": ")[2] for line in remarks] == [
        "spills 96 bytes",
        "no",
        "300000 bytes of shared memory do not fit into 232448",
    ]
    assert "PTXASError" in remarks[1]
