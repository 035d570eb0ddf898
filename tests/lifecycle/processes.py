"""Runs a function in two processes that communicate over gloo."""

import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD = 2
TIMEOUT_SECONDS = 120


def run(work, folder):
    """Returns what ``work(rank)`` returns in each process; ``work`` must be a function of an importable module.

    A process that raises fails the caller with its traceback; one that hangs is killed, and fails it too.
    """
    processes = mp.spawn(_joined, args=(work, folder), nprocs=WORLD, join=False)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not processes.join(timeout=1):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{work} did not return in {WORLD} processes within {TIMEOUT_SECONDS} s")
    finally:
        for process in processes.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def _joined(rank, work, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=WORLD)
    try:
        torch.save(work(rank), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
