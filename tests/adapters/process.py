"""Runs commands in a process of their own."""

import os
import subprocess


def run(*command, **environment):
    """Returns the standard output of a command; fails if the command does."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
