"""What a figure was measured on: processor, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Plain data to be written beside every result."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": git_commit(),
    }


def machine_line(of: dict[str, Any]) -> str:
    """``machine()`` as a sentence."""
    return (
        f"{of['cpu']}, {of['cores']} cores, {of['threads']} threads; torch {of['torch']}, Python {of['python']}; "
        f"commit {of['commit']}."
    )


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_commit() -> str:
    """The commit, with ``+changes`` when tracked files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--verify", "--quiet", "HEAD") or "not committed"
    return commit + "+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
