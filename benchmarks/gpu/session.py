"""Runs the stages of a call one after another, each in processes of its own that cannot stop the others."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from .cache import KERNELS, unpack_kernels
from .checkout import ROOT
from .plan import Stage
from .rows import FILE, Rows, brief, read

LOG = "log.txt"

_GRACE = 5.0
"""Seconds that a process has to end itself after its limit, and again after SIGTERM, before it is killed."""
_TAIL = 800
"""Number of last characters of a failed process's output that a row holds."""

_NOT_PRINTED = frozenset({"compiled", "no launchers", "prepared", "tuned"})
"""Kinds of rows that are not printed."""


class Session:
    """A call with a time limit.

    Args:
        stages: the stages, in their order.
        seconds: time for all stages together.
        folder: folder of the results; made if need be.
        module: command that the arguments of a process follow.
    """

    def __init__(self, stages: Sequence[Stage], seconds: float, folder: Path, module: Sequence[str]) -> None:
        self.stages, self.folder, self.module = stages, folder, module
        self._begun = time.monotonic()
        self._seconds = seconds

    def run(self) -> bool:
        """Runs all stages and returns whether each of them ran and succeeded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unpack_kernels()
        fates = [self._run(stage) for stage in self.stages]
        return all(fate == "done" for fate in fates)

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._begun)

    def _run(self, stage: Stage) -> str:
        left = self._left()
        rows, known = Rows(self.folder, stage.name), len(read(self.folder / FILE))
        if left < stage.least:
            rows.write("stage", fate="skipped", seconds_left=left)
            return self._told(known, "skipped")
        limit = min(stage.most, left)
        log = self.folder / LOG
        print(f"-- {stage.name}, at {self._seconds - left:.0f} s, for {limit:.0f} s at most", flush=True)
        with log.open("ab") as file:
            before = file.tell()
            begun = time.monotonic()
            status = self._processes(stage, limit, file)
            seconds = time.monotonic() - begun
        failed = [each for each in status if each != 0]
        fate = "done" if not failed else "timed out" if seconds >= limit else "failed"
        more: dict[str, Any] = {}
        if failed:
            more = {"exit_status": status, "said": log.read_bytes()[before:].decode(errors="replace")[-_TAIL:]}
        rows.write("stage", fate=fate, process_seconds=seconds, **more)
        return self._told(known, fate)

    def _processes(self, stage: Stage, limit: float, log: BinaryIO) -> list[int | str]:
        """Runs a stage's processes and returns each one's exit status, or why it has none."""
        # The monotonic clock is the same in all processes of a machine, so that each can be told its end.
        end = time.monotonic() + limit
        started: list[subprocess.Popen[bytes] | str] = []
        for process in stage.processes:
            named = stage.name if len(stage.processes) == 1 else process.split()[0]
            command = [*stage.under.split(), *self.module, "stage", *process.split()]
            command += ["--out", str(self.folder), "--named", named, "--end", str(end)]
            environment = {**_environment(), **stage.environment}
            started.append(_started(command, environment, log))
        running = [each for each in started if isinstance(each, subprocess.Popen)]
        try:
            _wait(running, end + _GRACE)
        finally:
            # The whole process groups: includes what the processes started themselves.
            _kill(running, signal.SIGKILL)
        return [each if isinstance(each, str) else _status(each) for each in started]

    def _told(self, known: int, fate: str) -> str:
        for row in read(self.folder / FILE)[known:]:
            if row["kind"] not in _NOT_PRINTED:
                print(brief(row), flush=True)
        return fate


def _environment() -> Mapping[str, str]:
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "TRITON_CACHE_DIR": str(KERNELS),
        # Saves the writing of sources and intermediate code, which nobody reads.
        "TRITON_STORE_BINARY_ONLY": "1",
    }


def _started(command: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> subprocess.Popen[bytes] | str:
    try:
        # In a session of its own, so that ``_kill`` also reaches what it starts itself.
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return str(error)


def _wait(running: Sequence[subprocess.Popen[bytes]], end: float) -> None:
    """Waits for all processes until ``end``; those still running get SIGTERM, then SIGKILL, each with a grace time."""
    for sent in (signal.SIGTERM, signal.SIGKILL, None):
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.0))
        late = [process for process in running if process.poll() is None]
        if not late or sent is None:
            return
        _kill(late, sent)
        end = time.monotonic() + _GRACE


def _status(process: subprocess.Popen[bytes]) -> int | str:
    status = process.poll()
    # A process that hangs in the driver cannot be killed.
    return "could not be killed" if status is None else status


def _kill(running: Sequence[subprocess.Popen[bytes]], sent: signal.Signals) -> None:
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
