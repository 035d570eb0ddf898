"""Describes what a result was measured on: processor, GPU, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_MEMORY = {True: "freed memory kept; ", False: "freed memory given back; ", None: ""}
"""Text for whether ``exda_primitives.memory.keep`` was in effect; None for result files that do not record it."""
PROJECT = Path(__file__).parents[4]
"""Root of the checkout, if this is one."""
_CODE = ("src", "adapters", "benchmarks", "pyproject.toml", ":!benchmarks/results")
"""Git pathspecs of the files whose changes can alter a result."""


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Describes this machine as plain data, to be stored with every result.

    Args:
        device: where the result was measured; for a CUDA device, the GPU, driver, CUDA and Triton are added.
    """
    about = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": git_commit(),
    }
    return about | (_gpu(device) if device is not None and device.type == "cuda" else {})


def machine_line(of: dict[str, Any]) -> str:
    """Returns what ``machine()`` returned as a sentence."""
    gpu = (
        f"{of['gpu']} ({of['gpu_gib']} GiB, capability {of['capability']}), driver {of['driver']}, CUDA {of['cuda']}, "
        f"Triton {of['triton']}; "
        if "gpu" in of
        else ""
    )
    # Without a GPU, Triton matters only to results on what kernels compile to.
    triton = f" Triton {of['triton']}." if "triton" in of and not gpu else ""
    return (
        f"{gpu}{of['cpu']}, {of['cores']} cores, {of['threads']} threads; torch {of['torch']}, Python {of['python']}; "
        f"{_MEMORY[of.get('memory_kept')]}commit {of['commit']}.{triton}"
    )


def cpu_model() -> str:
    """Returns the processor's name: the model name on Linux, elsewhere what ``platform`` knows (may be empty)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_commit() -> str:
    """Returns the checkout's commit, with ``+changes`` if the code was edited; for an installed package its version.

    Changed files of results do not count as edits.
    """
    # An installed package may be inside the repository of another project: git would give that one's commit.
    if not (PROJECT / "pyproject.toml").exists():
        return f"of version {package_version('exda_primitives') or 'none'}"
    commit = _output("git", "rev-parse", "--verify", "--quiet", "HEAD") or "not committed"
    changes = _output("git", "status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return commit + "+changes" if changes else commit


def _gpu(device: torch.device) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(device)
    # By UUID, as CUDA_VISIBLE_DEVICES renumbers the devices for PyTorch but not for nvidia-smi.
    asked = ("nvidia-smi", f"--id=GPU-{about.uuid}", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "gpu": about.name,
        "gpu_gib": round(about.total_memory / 2**30),
        "capability": f"{about.major}.{about.minor}",
        "driver": _output(*asked) or "unknown",
        "cuda": torch.version.cuda,
        "triton": package_version("triton") or "none",
    }


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def package_version(package: str) -> str | None:
    """Returns the version of an installed package, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
