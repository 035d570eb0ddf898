"""What a figure was measured on: processor, GPU, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_MEMORY = {True: "freed memory kept; ", False: "freed memory given back; ", None: ""}
"""By what is known of ``exda_primitives.memory.keep``, which not every file of results says."""
PROJECT = Path(__file__).parents[4]
_CODE = ("src", "adapters", "benchmarks", "pyproject.toml", ":!benchmarks/results")


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Plain data to be written beside every result.

    Args:
        device: where it was measured; of a CUDA device, the GPU and what drives it are added.
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
    """``machine()`` as a sentence."""
    gpu = (
        f"{of['gpu']} ({of['gpu_gib']} GiB, capability {of['capability']}), driver {of['driver']}, CUDA {of['cuda']}, "
        f"Triton {of['triton']}; "
        if "gpu" in of
        else ""
    )
    return (
        f"{gpu}{of['cpu']}, {of['cores']} cores, {of['threads']} threads; torch {of['torch']}, Python {of['python']}; "
        f"{_MEMORY[of.get('memory_kept')]}commit {of['commit']}."
    )


def cpu_model() -> str:
    """The processor's name, as the system has it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_commit() -> str:
    """The commit, with ``+changes`` when its code differs from it; of an installed package its version.

    Results that are written into the checkout, to be committed later, are no change of what wrote them.
    """
    # An environment may lie in the repository of somebody else's project.
    if not (PROJECT / "pyproject.toml").exists():
        return f"of version {package_version('exda_primitives') or 'none'}"
    commit = _output("git", "rev-parse", "--verify", "--quiet", "HEAD") or "not committed"
    changes = _output("git", "status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return commit + "+changes" if changes else commit


def _gpu(device: torch.device) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(device)
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
    """The version of an installed package, None for one that is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
