"""Packs what the GPU's machine may lack: the commit, packages, and compiled kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from exda_primitives.workbench.shared.machine import git_commit

from .cache import ARCHIVE, pack_kernels
from .checkout import NEEDED, PACKED, SITE, pack_commit
from .plan import compiling
from .session import Session

PYTHON = "3.12"
"""Python version of the GPU's machine, an x86-64 Linux."""

_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")
_SECONDS = 3600.0


def pack(kernels: bool, module: Sequence[str]) -> bool:
    """Fills ``build/gpu``.

    Args:
        kernels: whether to compile the kernels of call A as well, with this Python's torch and Triton; the archive is
            useful only with the same versions.
        module: command that the arguments of a compiling process follow.

    Returns:
        Whether everything was packed.
    """
    PACKED.mkdir(parents=True, exist_ok=True)
    pack_commit(git_commit())
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--upgrade", "--target", str(SITE), "--python-version", PYTHON]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, *platforms, *NEEDED], check=True)
    ARCHIVE.unlink(missing_ok=True)
    if not kernels:
        return True
    done = Session([compiling("A", _SECONDS)], _SECONDS, PACKED / "log", module).run()
    pack_kernels()
    return done
