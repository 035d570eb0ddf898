"""Starts several processes that train together, each on its own device."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import current_process, get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
from torch.multiprocessing.spawn import start_processes

from ...errors import ConfigError, ExDAError, ProcessError, StoppedError
from ..shared.packages import fabric, fabric_environments, fabric_strategies
from .signals import Asked, deaf, listening, wake

_GRACE = 10.0
"""Seconds that the other processes get to end by themselves after one has failed: they wait for it in vain, and fail
in turn."""

Work = Callable[..., object]
"""What each process does: takes its Fabric, then the other arguments. Must be a module-level function."""


def alone(accelerator: str) -> Any:
    """Returns a Fabric for this process alone."""
    return _fabric(accelerator, 1)


def together(accelerator: str, number: int, to: Asked, work: Work, *arguments: object) -> None:
    """Starts ``number`` processes and waits for them.

    Args:
        accelerator: ``"cpu"`` or ``"gpu"``.
        number: number of processes.
        to: shared by all processes; holds the number of a signal that came.
        work: what they do.
        arguments: arguments of ``work``; must be picklable.

    Raises:
        ConfigError: if the calling script is not protected by ``if __name__ == "__main__"``.
        ExDAError, StoppedError: as raised by the first process that raised one.
        ProcessError: if a process was killed.
        RuntimeError: with the traceback, for any other error of a process.
        KeyboardInterrupt: on the second signal.
    """
    # A spawned process imports the main script. If that calls this function again, it would start processes of its own.
    if getattr(current_process(), "_inheriting", False):
        raise ConfigError(
            "devices: each process runs the script again; put what it does behind if __name__ == '__main__':."
        )
    told: SimpleQueue[BaseException] = get_context("spawn").SimpleQueue()
    # Processes inherit the blocked signals, and unblock them when they listen, see `_process`.
    with deaf():
        begun = start_processes(
            _process, (accelerator, number, _free_port(), to, told, work, arguments), number, join=False
        )
    try:
        codes = _codes(begun.processes)
    finally:
        for process in begun.processes:
            process.kill()
            process.join()
    errors = list(iter(lambda: None if told.empty() else told.get(), None))
    known = next((error for error in errors if not isinstance(error, RuntimeError)), None)
    # A killed process comes before RuntimeErrors of others: they failed because they waited for it.
    killed = next((rank for rank, code in codes.items() if code < 0), None)
    if known is None and killed is not None:
        name = signal.Signals(-codes[killed]).name
        why = ", most likely because memory ran out" if name == "SIGKILL" else ""
        raise ProcessError(f"process {killed} of {number} was ended by {name}{why}.")
    if errors:
        raise known or errors[0]
    if any(codes.values()):
        raise ProcessError(f"of {number} processes, these have ended with an error: {codes}.")


def _codes(processes: Sequence[BaseProcess]) -> dict[int, int]:
    """Waits until all processes have ended, or one has failed; returns rank -> exit code of those that have ended."""
    while running := [process for process in processes if process.exitcode is None]:
        wait([process.sentinel for process in running])
        if any(process.exitcode for process in processes):
            end = time.monotonic() + _GRACE
            for process in processes:
                process.join(max(end - time.monotonic(), 0))
            break
    return {rank: process.exitcode for rank, process in enumerate(processes) if process.exitcode is not None}


def _process(
    rank: int,
    accelerator: str,
    number: int,
    port: int,
    to: Asked,
    told: SimpleQueue[BaseException],
    work: Work,
    arguments: tuple[object, ...],
) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Shares the cores, unless the user has decided on the number of threads.
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(_cores() // number, 1))
    with listening(to, alone=False):
        wake()
        try:
            _fabric(accelerator, number).launch(work, *arguments)
        except StoppedError as stopped:
            told.put(stopped)
        except Exception as error:
            known = isinstance(error, ExDAError)
            told.put(error if known else RuntimeError(f"process {rank} of {number}:\n{traceback.format_exc()}"))
            sys.exit(1)


def _fabric(accelerator: str, number: int) -> Any:
    # Set explicitly: in a Slurm job Fabric would choose Slurm's environment, and take its tasks for the processes.
    environment = fabric_environments().LightningEnvironment()
    if number == 1:
        return fabric().Fabric(accelerator=accelerator, devices=1, plugins=environment)
    # find_unused_parameters: some networks have parameters that nothing uses (PromptIR), or only some images use
    # (MoCE-IR).
    strategy = fabric_strategies().DDPStrategy(find_unused_parameters=True, cluster_environment=environment)
    return fabric().Fabric(accelerator=accelerator, devices=number, strategy=strategy)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
