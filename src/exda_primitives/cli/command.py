"""What was typed, for the files that a command writes."""

from __future__ import annotations

import shlex
import sys


def command_line() -> str:
    """The command with its arguments, as a shell takes them."""
    return shlex.join(["exda", *sys.argv[1:]])
