"""Reads from a kernel's machine code what it uses; no GPU is needed."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import triton
from triton.compiler import CompiledKernel
from triton.runtime import driver

from benchmarks.gpu.driver import Driver
from benchmarks.gpu.launches import Spec
from benchmarks.gpu.stages import compile as compiling

_TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")
# `/*0a30*/  @!P0 LDG.E.128 R4, ...`: address, optional predicate, operation.
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_BITS = {"8": 8, "16": 16, "64": 64, "128": 128}
_LOADS, _STORES = ("LDG", "LDGSTS"), ("STG",)


@dataclass(frozen=True)
class MachineCode:
    """What the machine code of a kernel in one configuration uses.

    Attributes:
        registers: registers per thread, 255 at most.
        spilled: bytes per thread in local memory, for values that found no register.
        shared: bytes of shared memory per program (thread block).
        barriers: number of instructions at which a program's threads wait for each other.
        loads: bits per thread -> number of instructions that read global memory.
        stores: bits per thread -> number of instructions that write global memory.
        instructions: number of instructions, without padding (NOP).
    """

    registers: int
    spilled: int
    shared: int
    barriers: int
    loads: dict[int, int]
    stores: dict[int, int]
    instructions: int


def of(launch: Spec, index: int) -> MachineCode | str:
    """Compiles a launch in its configuration ``index`` and reads the code; returns the error's text if that fails."""
    driver.set_active(Driver())
    try:
        return read(compiling.compiled(*configurations(launch)[index], _pool()))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]


def configurations(launch: Spec) -> list[compiling.Job]:
    """Returns a job for each configuration of a launch's kernel, in their order."""
    return list(compiling.jobs([launch | {"all": True}]))


def read(made: CompiledKernel) -> MachineCode:
    """Disassembles a kernel that Triton compiled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(_TOOL), "-sass", "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return parsed(text, made.metadata.shared)


def parsed(text: str, shared: int) -> MachineCode:
    """Parses the output of ``cuobjdump -sass -res-usage``.

    Args:
        text: the output.
        shared: bytes of shared memory, which the output does not tell.

    Raises:
        ValueError: for text of another form.
    """
    usage = _USAGE.search(text)
    instructions = [found.split(".") for found in _INSTRUCTION.findall(text)]
    if usage is None or not instructions:
        raise ValueError(f"{_TOOL.name} printed no code or no register usage: {text[:200]!r}")
    counts = Counter(name for name, *_ in instructions)
    return MachineCode(
        registers=int(usage[1]),
        spilled=int(usage[2]),
        shared=shared,
        barriers=counts["BAR"],
        loads=_widths(instructions, _LOADS),
        stores=_widths(instructions, _STORES),
        instructions=len(instructions) - counts["NOP"],
    )


def _widths(instructions: list[list[str]], names: tuple[str, ...]) -> dict[int, int]:
    found = Counter(_bits(parts) for name, *parts in instructions if name in names)
    return dict(sorted(found.items(), reverse=True))


def _bits(parts: list[str]) -> int:
    """Returns the width of a memory instruction: 32 bits unless a modifier says otherwise, such as `.U16` or `.128`."""
    return next((_BITS[part.lstrip("US")] for part in parts if part.lstrip("US") in _BITS), 32)


@cache
def _pool() -> compiling.Pool:
    return compiling.Pool()
