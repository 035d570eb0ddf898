"""The command line as typed, which commands record in the files that they write."""

from __future__ import annotations

import shlex
import sys


def command_line() -> str:
    """Returns the command with its arguments, quoted for a shell."""
    return shlex.join(["exda", *sys.argv[1:]])
