"""Compiles kernels for GPUs that need not be present: ``python compilation.py CAPABILITY < kernels.json``.

The interpreter also runs kernels that the compiler would refuse. The JSON is a list of [module, kernel, arguments]; an
argument is a type ("*bf16", "*fp32", "i32") or the value of a constant (for TYPE the name of a dtype). Constants that
an autotuned kernel's first configuration sets may be left out. Prints the kernels' shared memory in bytes, as a JSON
list.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

Kernel = tuple[str, str, dict[str, Any]]
PACKAGE = "exda_primitives.ops.triton"


def pointers(dtype: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, f"*{dtype}")


def integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def shared_memory(kernels: Sequence[Kernel], capability: int, cache: Path) -> list[int]:
    """Bytes of shared memory of each kernel, compiled in a process that does not use the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(cache)}
    run = subprocess.run(
        [sys.executable, __file__, str(capability)],
        input=json.dumps(kernels),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [int(each) for each in json.loads(run.stdout)]


def compiled_shared_memory(kernel: Any, arguments: dict[str, Any], capability: int) -> int:
    options = {}
    if not isinstance(kernel, triton.JITFunction):
        config = kernel.configs[0]
        arguments = arguments | config.kwargs
        options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
        kernel = kernel.fn
    given = {name: arguments[name] for name in kernel.arg_names}
    types = {n: v for n, v in given.items() if isinstance(v, str) and (v == "i32" or v.startswith("*"))}
    constants = {n: getattr(tl, v) if n == "TYPE" else v for n, v in given.items() if n not in types}
    # Triton 3.3 and later list constants among the types, too.
    marks = dict.fromkeys(constants, "constexpr") if "constexprs" in inspect.signature(ASTSource).parameters else {}
    source = ASTSource(kernel, types | marks, constants)
    shared: int = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).metadata.shared
    return shared


if __name__ == "__main__":
    used = []
    for module, name, arguments in json.load(sys.stdin):
        try:
            used.append(
                compiled_shared_memory(getattr(importlib.import_module(module), name), arguments, int(sys.argv[1]))
            )
        except Exception as error:
            raise SystemExit(f"{module}.{name}: {error}") from error
    print(json.dumps(used))
