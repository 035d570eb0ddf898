"""Describes the machine that a figure was measured on, for the scripts in this folder."""

from exda_primitives.workbench.shared.machine import cpu_model, git_commit, machine, machine_line

__all__ = ["cpu_model", "git_commit", "machine", "machine_line"]
